// assemble_inputs: a model's input tensors, straight from the cars' histories.
//
//   history  [cars][slots][features]   f32  a ring of feature rows a car; missing = NaN
//   newest   [cars]                    u32  slot of the car's newest row
//   count    [cars]                    u32  rows that the car has (at most `slots` are there)
//   choice   [wanted]                  u32  which feature becomes which input
//   mean, scale [wanted]               f32  input = clamp((feature − mean)·scale, −limit, limit); missing = 0
//   tensor   [cars][steps][wanted]     f32 or f16  out: oldest first, the newest row last, zeros before the first
//   mask     [cars][steps]             f32  out: 1 where there is a row, 0 where there is none
//
// f16 = 1 writes IEEE 754 half precision, rounded to nearest, ties to even, by whole numbers: the same bits
// everywhere. The tensor may be a TensorRT input binding: nothing passes through the host.
//
// Mapping: a thread an element, in the tensor's order, grid-stride: writes are coalesced, reads nearly so (a
// row's features lie together). Bytes: 4·cars·steps·wanted read, 4 or 2 written. Bound: memory bandwidth; for
// 20 cars a launch.
#include "include/reduce.h"
#include "include/half.h"

static const u32 ASSEMBLE_THREADS = 256;

KERNEL(ASSEMBLE_THREADS)
assemble_inputs(const float *history, const u32 *newest, const u32 *count, const u32 *choice, const float *mean,
                const float *scale, u8 *tensor, float *mask, u32 cars, u32 slots, u32 features, u32 steps,
                u32 wanted, float limit, u32 f16) {
  const u32 total = cars * steps * wanted;
  for (u32 i = blockIdx.x * ASSEMBLE_THREADS + threadIdx.x; i < total; i += gridDim.x * ASSEMBLE_THREADS) {
    const u32 input = i % wanted, step = i / wanted % steps, car = i / wanted / steps;
    const u32 have = count[car] < slots ? count[car] : slots;
    const u32 back = steps - 1 - step;
    float value = 0.0f;
    if (back < have) {
      const u32 slot = (newest[car] + slots - back) % slots;
      const float raw = history[((u64)car * slots + slot) * features + choice[input]];
      if (!is_missing(raw)) {
        value = (raw - mean[input]) * scale[input];
        value = value > limit ? limit : value < -limit ? -limit : value;
      }
    }
    if (f16) ((u16 *)tensor)[i] = half_bits(value);
    else ((float *)tensor)[i] = value;
    if (input == 0) mask[car * steps + step] = back < have ? 1.0f : 0.0f;
  }
}
