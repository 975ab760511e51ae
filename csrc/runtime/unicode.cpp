#include "unicode.h"

namespace gristmill::runtime {
namespace {

constexpr uint32_t kRuns[] = {
#include "unicode_table.inc"
};
constexpr int64_t kRunCount = sizeof kRuns / sizeof kRuns[0];

bool continuation(uint8_t b) { return (b & 0xc0) == 0x80; }

}  // namespace

CharClass char_class(uint32_t code_point) {
  if (code_point < 128) {  // almost all of source code
    const uint32_t lower = code_point | 32;
    if (lower >= 'a' && lower <= 'z') return CharClass::letter;
    if (code_point >= '0' && code_point <= '9') return CharClass::number;
    return code_point == ' ' || (code_point >= 9 && code_point <= 13) ? CharClass::space : CharClass::other;
  }
  int64_t low = 0, high = kRunCount;  // kRuns[low] starts at or before the code point, kRuns[high] behind it
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (kRuns[middle] >> 2 <= code_point ? low : high) = middle;
  }
  return static_cast<CharClass>(kRuns[low] & 3);
}

int64_t decode_utf8(const uint8_t* p, int64_t remain, uint32_t* code_point) {
  const uint8_t b = p[0];
  *code_point = b;
  if (b < 0x80) return 1;
  *code_point = 0xfffd;
  const int64_t n = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2;
  if (b < 0xc2 || b > 0xf4 || remain < n) return 1;
  uint32_t c = b & (0x7fu >> n);
  for (int64_t i = 1; i < n; ++i) {
    if (!continuation(p[i])) return 1;
    c = c << 6 | (p[i] & 0x3fu);
  }
  const bool overlong = (n == 3 && c < 0x800) || (n == 4 && c < 0x10000);
  if (overlong || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 1;
  *code_point = c;
  return n;
}

}  // namespace gristmill::runtime
