// Running: runtime, engine, execution context, refitting.
#include "shim.hpp"

#include <memory>

using namespace nvinfer1;
using shim::guarded;
using shim::hand_out;
using shim::status;

namespace
{

// A context with what must outlive it. Members are destroyed last to first.
struct Context
{
#if defined(TRT_FEATURE_RTX)
    std::unique_ptr<IRuntimeCache> cache;
    std::unique_ptr<IRuntimeConfig> config;
#endif
    std::unique_ptr<IExecutionContext> context;
};

ICudaEngine& of(trt_engine* engine) noexcept
{
    return *reinterpret_cast<ICudaEngine*>(engine);
}

ICudaEngine const& of(trt_engine const* engine) noexcept
{
    return *reinterpret_cast<ICudaEngine const*>(engine);
}

Context& all_of(trt_context* context) noexcept
{
    return *reinterpret_cast<Context*>(context);
}

IExecutionContext& of(trt_context* context) noexcept
{
    return *all_of(context).context;
}

IExecutionContext const& of(trt_context const* context) noexcept
{
    return *reinterpret_cast<Context const*>(context)->context;
}

cudaStream_t stream_of(void* stream) noexcept
{
    return static_cast<cudaStream_t>(stream);
}

// Only some releases can be asked; where there is a choice, the first of these two is it.
template <typename Asked>
auto ask_capturable(Asked const& context, cudaStream_t stream, int32_t* capturable, int)
    -> decltype(context.isStreamCapturable(stream), int32_t{})
{
    *capturable = context.isStreamCapturable(stream) ? 1 : 0;
    return TRT_OK;
}

template <typename Asked>
int32_t ask_capturable(Asked const&, cudaStream_t, int32_t*, long)
{
    return TRT_UNSUPPORTED;
}

} // namespace

extern "C"
{

int32_t trt_runtime_create(void* create, trt_logger* logger, trt_runtime** runtime)
{
    return guarded([&] {
        auto* const entry = reinterpret_cast<decltype(&createInferRuntime_INTERNAL)>(create);
        auto* const made = entry(&shim::logger_of(logger), NV_TENSORRT_VERSION);
        return hand_out(static_cast<IRuntime*>(made), runtime);
    });
}

int32_t trt_runtime_destroy(trt_runtime* runtime)
{
    return guarded([&] {
        delete reinterpret_cast<IRuntime*>(runtime);
        return int32_t{TRT_OK};
    });
}

int32_t trt_runtime_deserialize(trt_runtime* runtime, void const* plan, size_t bytes, trt_engine** engine)
{
    return guarded(
        [&] { return hand_out(reinterpret_cast<IRuntime*>(runtime)->deserializeCudaEngine(plan, bytes), engine); });
}

int32_t trt_engine_destroy(trt_engine* engine)
{
    return guarded([&] {
        delete &of(engine);
        return int32_t{TRT_OK};
    });
}

int32_t trt_engine_counts(trt_engine const* engine, int32_t* tensors, int32_t* profiles, int32_t* layers)
{
    return guarded([&] {
        *tensors = of(engine).getNbIOTensors();
        *profiles = of(engine).getNbOptimizationProfiles();
        *layers = of(engine).getNbLayers();
        return int32_t{TRT_OK};
    });
}

int32_t trt_engine_facts(trt_engine const* engine, int64_t* device_memory, int32_t* refittable)
{
    return guarded([&] {
        *device_memory = of(engine).getDeviceMemorySizeV2();
        *refittable = of(engine).isRefittable() ? 1 : 0;
        return int32_t{TRT_OK};
    });
}

int32_t trt_engine_tensor(trt_engine const* engine, int32_t i, trt_tensor* tensor)
{
    return guarded([&] {
        char const* const name = of(engine).getIOTensorName(i);
        if (name == nullptr)
        {
            return int32_t{TRT_REFUSED};
        }
        tensor->name = name;
        tensor->type = static_cast<int32_t>(of(engine).getTensorDataType(name));
        tensor->is_input = of(engine).getTensorIOMode(name) == TensorIOMode::kINPUT ? 1 : 0;
        tensor->on_host = of(engine).getTensorLocation(name) == TensorLocation::kHOST ? 1 : 0;
        tensor->dims = shim::from_dims(of(engine).getTensorShape(name));
        return int32_t{TRT_OK};
    });
}

int32_t trt_engine_profile_dims(
    trt_engine const* engine, char const* input, int32_t profile, trt_dims* min, trt_dims* opt, trt_dims* max)
{
    return guarded([&] {
        Dims const low = of(engine).getProfileShape(input, profile, OptProfileSelector::kMIN);
        Dims const best = of(engine).getProfileShape(input, profile, OptProfileSelector::kOPT);
        Dims const high = of(engine).getProfileShape(input, profile, OptProfileSelector::kMAX);
        if (low.nbDims < 0 || best.nbDims < 0 || high.nbDims < 0)
        {
            return int32_t{TRT_REFUSED};
        }
        *min = shim::from_dims(low);
        *opt = shim::from_dims(best);
        *max = shim::from_dims(high);
        return int32_t{TRT_OK};
    });
}

int32_t trt_engine_serialize(trt_engine const* engine, trt_memory** plan)
{
    return guarded([&] { return hand_out(of(engine).serialize(), plan); });
}

int32_t trt_engine_inspect(trt_engine const* engine, trt_text_fn json, void* user)
{
    return guarded([&] {
        std::unique_ptr<IEngineInspector> const inspector{of(engine).createEngineInspector()};
        char const* const text
            = inspector ? inspector->getEngineInformation(LayerInformationFormat::kJSON) : nullptr;
        if (text != nullptr)
        {
            json(user, text);
        }
        return status(text != nullptr);
    });
}

int32_t trt_engine_refit(trt_engine* engine, void* create_refitter, void* create_parser_refitter,
    trt_logger* logger, void const* model, size_t bytes, trt_parser_error_fn error, void* user)
{
    return guarded([&] {
        auto* const entry = reinterpret_cast<decltype(&createInferRefitter_INTERNAL)>(create_refitter);
        auto* const parser_entry
            = reinterpret_cast<decltype(&createNvOnnxParserRefitter_INTERNAL)>(create_parser_refitter);
        ILogger& log = shim::logger_of(logger);
        std::unique_ptr<IRefitter> const refitter{
            static_cast<IRefitter*>(entry(&of(engine), &log, NV_TENSORRT_VERSION))};
        if (!refitter)
        {
            return int32_t{TRT_REFUSED};
        }
        std::unique_ptr<nvonnxparser::IParserRefitter> const parser{static_cast<nvonnxparser::IParserRefitter*>(
            parser_entry(refitter.get(), &log, NV_ONNX_PARSER_VERSION))};
        if (!parser)
        {
            return int32_t{TRT_REFUSED};
        }
        if (!parser->refitFromBytes(model, bytes))
        {
            shim::report(*parser, error, user);
            return int32_t{TRT_REFUSED};
        }
        return status(refitter->refitCudaEngine());
    });
}

int32_t trt_context_create(
    trt_engine* engine, int32_t use_cache, void const* cache, size_t cache_bytes, trt_context** context)
{
    return guarded([&] {
        auto made = std::make_unique<Context>();
        if (use_cache != 0)
        {
#if defined(TRT_FEATURE_RTX)
            made->config.reset(of(engine).createRuntimeConfig());
            if (!made->config)
            {
                return int32_t{TRT_REFUSED};
            }
            made->cache.reset(made->config->createRuntimeCache());
            if (!made->cache || (cache_bytes != 0 && !made->cache->deserialize(cache, cache_bytes))
                || !made->config->setRuntimeCache(*made->cache))
            {
                return int32_t{TRT_REFUSED};
            }
            made->context.reset(of(engine).createExecutionContext(made->config.get()));
#else
            (void) cache, (void) cache_bytes;
            return int32_t{TRT_UNSUPPORTED};
#endif
        }
        else
        {
            made->context.reset(of(engine).createExecutionContext());
        }
        if (!made->context)
        {
            return int32_t{TRT_REFUSED};
        }
        return hand_out(made.release(), context);
    });
}

int32_t trt_context_destroy(trt_context* context)
{
    return guarded([&] {
        delete &all_of(context);
        return int32_t{TRT_OK};
    });
}

int32_t trt_context_cache(trt_context const* context, trt_memory** blob)
{
#if defined(TRT_FEATURE_RTX)
    return guarded([&] {
        auto const& cache = reinterpret_cast<Context const*>(context)->cache;
        return cache ? hand_out(cache->serialize(), blob) : int32_t{TRT_UNSUPPORTED};
    });
#else
    (void) context, (void) blob;
    return TRT_UNSUPPORTED;
#endif
}

int32_t trt_context_profile(trt_context* context, int32_t profile, void* stream)
{
    return guarded([&] { return status(of(context).setOptimizationProfileAsync(profile, stream_of(stream))); });
}

int32_t trt_context_set_dims(trt_context* context, char const* input, trt_dims const* dims)
{
    return guarded([&] { return status(of(context).setInputShape(input, shim::to_dims(*dims))); });
}

int32_t trt_context_dims(trt_context const* context, char const* tensor, trt_dims* dims)
{
    return guarded([&] {
        *dims = shim::from_dims(of(context).getTensorShape(tensor));
        return int32_t{TRT_OK};
    });
}

int32_t trt_context_max_output_bytes(trt_context const* context, char const* tensor, int64_t* bytes)
{
    return guarded([&] {
        int64_t const most = of(context).getMaxOutputSize(tensor);
        if (most >= 0)
        {
            *bytes = most;
        }
        return status(most >= 0);
    });
}

int32_t trt_context_bind(trt_context* context, char const* tensor, void* address)
{
    return guarded([&] { return status(of(context).setTensorAddress(tensor, address)); });
}

int32_t trt_context_capturable(trt_context const* context, void* stream, int32_t* capturable)
{
    return guarded([&] { return ask_capturable(of(context), stream_of(stream), capturable, 0); });
}

int32_t trt_context_enqueue(trt_context* context, void* stream)
{
    return guarded([&] { return status(of(context).enqueueV3(stream_of(stream))); });
}

} // extern "C"
