// Philox4x32-10: random numbers that are a function of where they are used. The same as `src/compute/philox.rs`:
// key = seed, counter = (race, lap, car, purpose).
#pragma once
#include "block.h"

enum Purpose : u32 { DRAW_LAP = 0, DRAW_FORM = 1, DRAW_STINT = 2, DRAW_RACE = 3 };

struct Words {
  u32 w0, w1, w2, w3;
};

INLINE Words philox(u32 race, u32 lap, u32 car, u32 purpose, u32 k0, u32 k1) {
  Words c = {race, lap, car, purpose};
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u32 a_high = high_product(0xD2511F53u, c.w0), a_low = 0xD2511F53u * c.w0;
    const u32 b_high = high_product(0xCD9E8D57u, c.w2), b_low = 0xCD9E8D57u * c.w2;
    const Words next = {b_high ^ c.w1 ^ k0, b_low, a_high ^ c.w3 ^ k1, a_low};
    c = next;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Sum of the four bytes of a word, less its mean: a bell from −510 to 510.
INLINE i32 bell(u32 word) {
  const u32 pairs = (word & 0x00FF00FFu) + ((word >> 8) & 0x00FF00FFu);
  return (i32)((pairs & 0xFFFFu) + (pairs >> 16)) - 510;
}
