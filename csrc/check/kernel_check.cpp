// kernel_check: replays a file of cases under every table this machine can run, on 1, 2 and 3 threads. Needs no Python,
// so it runs under sanitizers, in an emulator and on a board.
//
// A result must lie within its bound of the float64 one, be the same bytes on any number of threads and, where the case
// says so, on every table. The last line's hash covers those bytes: two machines with the same hash agree in every bit.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "backend.h"
#include "check/replay.h"

namespace gristmill::check {
namespace {

constexpr int32_t kThreads[] = {1, 2, 3};
constexpr int kShownFailures = 20;

struct Tally {
  int failures = 0;
  double worst = 0;
  std::string worst_case;
};

bool read_file(const char* path, Bytes* bytes) {
  FILE* f = std::fopen(path, "rb");
  if (!f) return false;
  unsigned char block[65536];
  for (size_t n; (n = std::fread(block, 1, sizeof block, f)) > 0;) bytes->insert(bytes->end(), block, block + n);
  const bool read = !std::ferror(f);
  std::fclose(f);
  return read;
}

void fail(const Case& c, int32_t threads, const std::string& why, Tally* tally) {
  if (++tally->failures > kShownFailures) return;
  std::printf("FAIL %s %s %s, %d thread%s: %s\n", kernels()->name, c.entry.c_str(), c.label.c_str(), threads,
              threads > 1 ? "s" : "", why.c_str());
}

// `expected` holds the bytes of an earlier replay, or nothing yet.
void run_case(const Case& c, int32_t threads, Bytes* expected, Tally* tally) {
  Outcome out = replay(c, kernels(), threads);
  if (out.worst > tally->worst) tally->worst = out.worst, tally->worst_case = c.entry + " " + c.label;
  if (!out.problem.empty()) return fail(c, threads, out.problem, tally);
  if (expected->empty())
    *expected = std::move(out.results);
  else if (*expected != out.results)
    fail(c, threads, threads > 1 ? "other bits than on 1 thread" : "other bits than the table before", tally);
}

int run_table(const char* name, const std::vector<Case>& cases, std::vector<Bytes>* shared) {
  table_select(name);
  Tally tally;
  std::vector<Bytes> own(cases.size());
  for (const int32_t threads : kThreads)
    for (size_t i = 0; i < cases.size(); ++i)
      run_case(cases[i], threads, cases[i].same_bits ? &(*shared)[i] : &own[i], &tally);
  std::printf("%-10s  %zu cases x 1, 2, 3 threads, %d wrong, worst error %.2f of its bound (%s)\n", name, cases.size(),
              tally.failures, tally.worst, tally.worst_case.c_str());
  std::fflush(stdout);
  return tally.failures;
}

uint64_t hash(const std::vector<Bytes>& results) {
  uint64_t h = 14695981039346656037ull;
  for (const Bytes& r : results)
    for (const unsigned char b : r) h = (h ^ b) * 1099511628211ull;
  return h;
}

int run(const char* path, const std::vector<std::string>& tables) {
  Bytes file;
  if (!read_file(path, &file)) return std::fprintf(stderr, "kernel_check: cannot read %s\n", path), 2;
  std::vector<Case> cases;
  const std::string wrong = read_cases(file, kernel_abi(), &cases);
  if (!wrong.empty()) return std::fprintf(stderr, "kernel_check: %s: %s\n", path, wrong.c_str()), 2;
  std::vector<Bytes> shared(cases.size());
  int failures = 0;
  for (const std::string& name : tables) failures += run_table(name.c_str(), cases, &shared);
  std::printf("f32 bits %016llx\n", static_cast<unsigned long long>(hash(shared)));
  return failures ? 1 : 0;
}

std::vector<std::string> usable_tables() {
  std::vector<std::string> names;
  for (int i = table_count() - 1; i >= 0; --i) names.emplace_back(table_name(i));  // the scalar one first
  return names;
}

}  // namespace
}  // namespace gristmill::check

int main(int argc, char** argv) {
  using namespace gristmill::check;
  const std::vector<std::string> usable = usable_tables();
  std::vector<std::string> tables;
  for (int i = 2; i < argc; ++i)
    for (const std::string& name : usable)
      if (name == argv[i]) tables.push_back(name);
  if (argc < 2 || argv[1][0] == '-' || static_cast<int>(tables.size()) != argc - 2 + (argc < 2)) {
    std::fprintf(stderr,
                 "usage: kernel_check CASES [TABLE...]\nwrite CASES with: python tests/cases.py CASES\ntables:");
    for (const std::string& name : usable) std::fprintf(stderr, " %s", name.c_str());
    return std::fprintf(stderr, "\n"), 2;
  }
  return run(argv[1], tables.empty() ? usable : tables);
}
