// Every kernel of the binary, in one unit: one module to load, and one list of them.
#pragma once

#include "assemble_inputs.cu"
#include "delta_trace.cu"
#include "frame_stats.cu"
#include "lap_features.cu"
#include "lap_resample.cu"
#include "race_monte_carlo.cu"
#include "stint_fit.cu"

#define KERNELS(use) \
  use(assemble_inputs) use(delta_trace) use(frame_stats) use(lap_features) use(lap_resample) \
  use(race_monte_carlo) use(stint_fit)
