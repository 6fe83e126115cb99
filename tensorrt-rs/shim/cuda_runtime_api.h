// Stands in for CUDA's header of this name: TensorRT's headers want two names from it and nothing else, and
// a machine that cross-compiles need not have CUDA for two opaque pointers.
#pragma once

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
