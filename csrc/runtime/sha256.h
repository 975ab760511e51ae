// SHA-256 (FIPS 180-4), streaming.
#pragma once
#include <cstdint>

namespace gristmill::runtime {

struct Sha256 {
  Sha256();
  void update(const void* data, int64_t bytes);
  void finish(uint8_t digest[32]);
  void finish_hex(char hex[65]);  // lower case, terminated

 private:
  void block(const uint8_t* p);
  uint32_t state_[8];
  uint8_t pending_[64];
  int64_t total_ = 0;
};

}  // namespace gristmill::runtime
