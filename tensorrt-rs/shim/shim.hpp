// What the shim's files share: the headers of the chosen release, the guard against exceptions, and the
// conversions.
#pragma once

#include "shim.h"

#include <NvInfer.h>
#include <NvInferRuntime.h>
#include <NvInferVersion.h>
#include <NvOnnxParser.h>

#include <exception>

// The crate's feature names the release; the headers must be of it. TensorRT-RTX counts from 1.
#if defined(TRT_FEATURE_RTX)
#if NV_TENSORRT_MAJOR != 1
#error "feature `rtx` wants the headers of TensorRT-RTX 1.x: the folder in TENSORRT_INCLUDE has another release's"
#endif
#elif defined(TRT_FEATURE_11)
#if NV_TENSORRT_MAJOR != 11
#error "feature `tensorrt-11` wants the headers of TensorRT 11: the folder in TENSORRT_INCLUDE has another release's"
#endif
#elif defined(TRT_FEATURE_10)
#if NV_TENSORRT_MAJOR != 10
#error "feature `tensorrt-10` wants the headers of TensorRT 10: the folder in TENSORRT_INCLUDE has another release's"
#endif
#else
#error "choose the release: TRT_FEATURE_RTX, TRT_FEATURE_11 or TRT_FEATURE_10"
#endif

namespace shim
{

void remember(char const* what) noexcept;

// Runs `body`, which returns a status, and lets nothing that it throws out.
template <typename Body>
int32_t guarded(Body&& body) noexcept
{
    try
    {
        return body();
    }
    catch (std::exception const& e)
    {
        remember(e.what());
    }
    catch (...)
    {
        remember("something that is no std::exception");
    }
    return TRT_THREW;
}

inline int32_t status(bool done) noexcept
{
    return done ? TRT_OK : TRT_REFUSED;
}

// Hands `made` out as the opaque `Handle`; null is TensorRT's way of refusing.
template <typename Handle, typename Object>
int32_t hand_out(Object* made, Handle** handle) noexcept
{
    if (made == nullptr)
    {
        return TRT_REFUSED;
    }
    *handle = reinterpret_cast<Handle*>(made);
    return TRT_OK;
}

nvinfer1::ILogger& logger_of(trt_logger* logger) noexcept;

inline nvinfer1::Dims to_dims(trt_dims const& from) noexcept
{
    nvinfer1::Dims to{};
    to.nbDims = from.rank;
    for (int32_t i = 0; i < from.rank && i < TRT_MAX_RANK; ++i)
    {
        to.d[i] = from.extent[i];
    }
    return to;
}

inline trt_dims from_dims(nvinfer1::Dims const& from) noexcept
{
    static_assert(nvinfer1::Dims::MAX_DIMS == TRT_MAX_RANK, "TensorRT's highest rank");
    trt_dims to{};
    to.rank = from.nbDims;
    for (int32_t i = 0; i < from.nbDims && i < TRT_MAX_RANK; ++i)
    {
        to.extent[i] = from.d[i];
    }
    return to;
}

// A parser and a parser-refitter report errors alike.
template <typename Parser>
void report(Parser const& parser, trt_parser_error_fn error, void* user)
{
    for (int32_t i = 0; i < parser.getNbErrors(); ++i)
    {
        nvonnxparser::IParserError const* e = parser.getError(i);
        if (e == nullptr)
        {
            continue;
        }
        trt_parser_error const out{
            static_cast<int32_t>(e->code()), e->node(), e->desc(), e->nodeName(), e->nodeOperator()};
        error(user, &out);
    }
}

} // namespace shim
