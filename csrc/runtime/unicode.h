// Code points of UTF-8 text and their classes in the GPT-2 pre-tokenizer: \p{L}, \p{N}, \s and the rest.
#pragma once
#include <cstdint>

namespace gristmill::runtime {

enum class CharClass : uint8_t { other = 0, letter = 1, number = 2, space = 3 };

CharClass char_class(uint32_t code_point);

// Length in bytes (1 to 4) of the code point at p. A byte that begins no valid sequence (overlong, surrogate,
// above U+10FFFF or cut short) is taken alone, as U+FFFD, whose class is other.
int64_t decode_utf8(const uint8_t* p, int64_t remain, uint32_t* code_point);

}  // namespace gristmill::runtime
