// Building: builder, network, ONNX parser, configuration, profiles.
#include "shim.hpp"

#include <string_view>
#include <vector>

using namespace nvinfer1;
using shim::guarded;
using shim::hand_out;
using shim::status;

namespace
{

IBuilder& of(trt_builder* builder) noexcept
{
    return *reinterpret_cast<IBuilder*>(builder);
}

INetworkDefinition& of(trt_network* network) noexcept
{
    return *reinterpret_cast<INetworkDefinition*>(network);
}

INetworkDefinition const& of(trt_network const* network) noexcept
{
    return *reinterpret_cast<INetworkDefinition const*>(network);
}

nvonnxparser::IParser& of(trt_parser* parser) noexcept
{
    return *reinterpret_cast<nvonnxparser::IParser*>(parser);
}

IBuilderConfig& of(trt_config* config) noexcept
{
    return *reinterpret_cast<IBuilderConfig*>(config);
}

IOptimizationProfile& of(trt_profile* profile) noexcept
{
    return *reinterpret_cast<IOptimizationProfile*>(profile);
}

IHostMemory const& of(trt_memory const* memory) noexcept
{
    return *reinterpret_cast<IHostMemory const*>(memory);
}

// Releases differ in how wide a shape value is; where there is a choice, the first of these two is it.
template <typename Profile>
auto set_values(Profile& profile, char const* input, OptProfileSelector which, int64_t const* values, int32_t count,
    int) -> decltype(profile.setShapeValuesV2(input, which, values, count))
{
    return profile.setShapeValuesV2(input, which, values, count);
}

template <typename Profile>
bool set_values(Profile& profile, char const* input, OptProfileSelector which, int64_t const* values, int32_t count,
    long)
{
    std::vector<int32_t> narrow(values, values + count);
    for (int32_t i = 0; i < count; ++i)
    {
        if (narrow[i] != values[i])
        {
            return false;
        }
    }
    return profile.setShapeValues(input, which, narrow.data(), count);
}

#if defined(TRT_FEATURE_10)
// Later releases of 10 call it deprecated: 11 takes types from the model alone.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
BuilderFlag fp16_flag() noexcept
{
    return BuilderFlag::kFP16;
}
#pragma GCC diagnostic pop
#endif

template <typename Object>
int32_t destroy(Object* object) noexcept
{
    return guarded([&] {
        delete object;
        return int32_t{TRT_OK};
    });
}

} // namespace

extern "C"
{

int32_t trt_builder_create(void* create, trt_logger* logger, trt_builder** builder)
{
    return guarded([&] {
        auto* const entry = reinterpret_cast<decltype(&createInferBuilder_INTERNAL)>(create);
        auto* const made = entry(&shim::logger_of(logger), NV_TENSORRT_VERSION);
        return hand_out(static_cast<IBuilder*>(made), builder);
    });
}

int32_t trt_builder_destroy(trt_builder* builder)
{
    return destroy(&of(builder));
}

int32_t trt_builder_network(trt_builder* builder, int32_t strongly_typed, trt_network** network)
{
    return guarded([&] {
#if defined(TRT_FEATURE_10)
        auto const flag = NetworkDefinitionCreationFlag::kSTRONGLY_TYPED;
        auto const flags = strongly_typed != 0 ? 1U << static_cast<uint32_t>(flag) : 0U;
        return hand_out(of(builder).createNetworkV2(flags), network);
#else
        // Types always come from the model.
        return strongly_typed != 0 ? hand_out(of(builder).createNetworkV2(0U), network) : int32_t{TRT_UNSUPPORTED};
#endif
    });
}

int32_t trt_builder_config(trt_builder* builder, trt_config** config)
{
    return guarded([&] { return hand_out(of(builder).createBuilderConfig(), config); });
}

int32_t trt_builder_profile(trt_builder* builder, trt_profile** profile)
{
    return guarded([&] { return hand_out(of(builder).createOptimizationProfile(), profile); });
}

int32_t trt_builder_build(trt_builder* builder, trt_network* network, trt_config* config, trt_memory** plan)
{
    return guarded([&] { return hand_out(of(builder).buildSerializedNetwork(of(network), of(config)), plan); });
}

int32_t trt_network_destroy(trt_network* network)
{
    return destroy(&of(network));
}

int32_t trt_network_counts(trt_network const* network, int32_t* layers, int32_t* inputs, int32_t* outputs)
{
    return guarded([&] {
        *layers = of(network).getNbLayers();
        *inputs = of(network).getNbInputs();
        *outputs = of(network).getNbOutputs();
        return int32_t{TRT_OK};
    });
}

int32_t trt_network_tensor(
    trt_network const* network, int32_t output, int32_t i, char const** name, int32_t* type, trt_dims* dims)
{
    return guarded([&] {
        ITensor const* const tensor = output != 0 ? of(network).getOutput(i) : of(network).getInput(i);
        if (tensor == nullptr)
        {
            return int32_t{TRT_REFUSED};
        }
        *name = tensor->getName();
        *type = static_cast<int32_t>(tensor->getType());
        *dims = shim::from_dims(tensor->getDimensions());
        return int32_t{TRT_OK};
    });
}

int32_t trt_network_set_input_dims(trt_network* network, char const* name, trt_dims const* dims)
{
    return guarded([&] {
        std::string_view const wanted{name};
        for (int32_t i = 0; i < of(network).getNbInputs(); ++i)
        {
            ITensor* const input = of(network).getInput(i);
            if (input != nullptr && wanted == input->getName())
            {
                input->setDimensions(shim::to_dims(*dims));
                return int32_t{TRT_OK};
            }
        }
        return int32_t{TRT_REFUSED};
    });
}

int32_t trt_parser_create(void* create, trt_network* network, trt_logger* logger, trt_parser** parser)
{
    return guarded([&] {
        auto* const entry = reinterpret_cast<decltype(&createNvOnnxParser_INTERNAL)>(create);
        auto* const made = entry(&of(network), &shim::logger_of(logger), NV_ONNX_PARSER_VERSION);
        return hand_out(static_cast<nvonnxparser::IParser*>(made), parser);
    });
}

int32_t trt_parser_destroy(trt_parser* parser)
{
    return destroy(&of(parser));
}

int32_t trt_parser_parse(trt_parser* parser, void const* model, size_t bytes, char const* path,
    trt_parser_error_fn error, void* user)
{
    return guarded([&] {
        of(parser).clearErrors();
        bool const parsed = of(parser).parse(model, bytes, path);
        if (!parsed)
        {
            shim::report(of(parser), error, user);
        }
        return status(parsed);
    });
}

int32_t trt_config_destroy(trt_config* config)
{
    return destroy(&of(config));
}

int32_t trt_config_flag(trt_config* config, int32_t flag, int32_t on)
{
    return guarded([&] {
        BuilderFlag chosen{};
        switch (flag)
        {
#if defined(TRT_FEATURE_10)
        case TRT_FLAG_FP16: chosen = fp16_flag(); break;
#endif
        case TRT_FLAG_TF32: chosen = BuilderFlag::kTF32; break;
        case TRT_FLAG_REFIT: chosen = BuilderFlag::kREFIT; break;
        case TRT_FLAG_STRIP_WEIGHTS: chosen = BuilderFlag::kSTRIP_PLAN; break;
#if !defined(TRT_FEATURE_RTX)
        case TRT_FLAG_VERSION_COMPATIBLE: chosen = BuilderFlag::kVERSION_COMPATIBLE; break;
#endif
        default: return int32_t{TRT_UNSUPPORTED};
        }
        on != 0 ? of(config).setFlag(chosen) : of(config).clearFlag(chosen);
        return int32_t{TRT_OK};
    });
}

int32_t trt_config_workspace(trt_config* config, size_t bytes)
{
    return guarded([&] {
        of(config).setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, bytes);
        return status(of(config).getMemoryPoolLimit(MemoryPoolType::kWORKSPACE) == bytes);
    });
}

int32_t trt_config_optimization_level(trt_config* config, int32_t level)
{
    return guarded([&] {
        of(config).setBuilderOptimizationLevel(level);
        return status(of(config).getBuilderOptimizationLevel() == level);
    });
}

int32_t trt_config_detailed_layers(trt_config* config, int32_t on)
{
    return guarded([&] {
        of(config).setProfilingVerbosity(
            on != 0 ? ProfilingVerbosity::kDETAILED : ProfilingVerbosity::kLAYER_NAMES_ONLY);
        return int32_t{TRT_OK};
    });
}

int32_t trt_config_aux_streams(trt_config* config, int32_t most)
{
    return guarded([&] {
        of(config).setMaxAuxStreams(most);
        return status(of(config).getMaxAuxStreams() == most);
    });
}

int32_t trt_config_compute_capabilities(trt_config* config, int32_t const* capabilities, int32_t count)
{
#if defined(TRT_FEATURE_RTX)
    return guarded([&] {
        if (!of(config).setNbComputeCapabilities(count))
        {
            return int32_t{TRT_REFUSED};
        }
        for (int32_t i = 0; i < count; ++i)
        {
            if (!of(config).setComputeCapability(static_cast<ComputeCapability>(capabilities[i]), i))
            {
                return int32_t{TRT_REFUSED};
            }
        }
        return int32_t{TRT_OK};
    });
#else
    (void) config, (void) capabilities, (void) count;
    return TRT_UNSUPPORTED;
#endif
}

int32_t trt_config_add_profile(trt_config* config, trt_profile const* profile, int32_t* index)
{
    return guarded([&] {
        int32_t const added
            = of(config).addOptimizationProfile(reinterpret_cast<IOptimizationProfile const*>(profile));
        if (added >= 0)
        {
            *index = added;
        }
        return status(added >= 0);
    });
}

#if defined(TRT_FEATURE_RTX)
// Its timing caches do nothing; a context of its runtime has a cache instead.
int32_t trt_config_timing_cache(trt_config*, void const*, size_t, trt_timing_cache**)
{
    return TRT_UNSUPPORTED;
}

int32_t trt_timing_cache_serialize(trt_timing_cache const*, trt_memory**)
{
    return TRT_UNSUPPORTED;
}

int32_t trt_timing_cache_destroy(trt_timing_cache*)
{
    return TRT_UNSUPPORTED;
}
#else
int32_t trt_config_timing_cache(trt_config* config, void const* blob, size_t bytes, trt_timing_cache** cache)
{
    return guarded([&] {
        ITimingCache* const made = of(config).createTimingCache(blob, bytes);
        if (made == nullptr)
        {
            return int32_t{TRT_REFUSED};
        }
        if (!of(config).setTimingCache(*made, false))
        {
            delete made;
            return int32_t{TRT_REFUSED};
        }
        return hand_out(made, cache);
    });
}

int32_t trt_timing_cache_serialize(trt_timing_cache const* cache, trt_memory** blob)
{
    return guarded([&] { return hand_out(reinterpret_cast<ITimingCache const*>(cache)->serialize(), blob); });
}

int32_t trt_timing_cache_destroy(trt_timing_cache* cache)
{
    return destroy(reinterpret_cast<ITimingCache*>(cache));
}
#endif

int32_t trt_profile_dims(
    trt_profile* profile, char const* input, trt_dims const* min, trt_dims const* opt, trt_dims const* max)
{
    return guarded([&] {
        IOptimizationProfile& p = of(profile);
        return status(p.setDimensions(input, OptProfileSelector::kMIN, shim::to_dims(*min))
            && p.setDimensions(input, OptProfileSelector::kOPT, shim::to_dims(*opt))
            && p.setDimensions(input, OptProfileSelector::kMAX, shim::to_dims(*max)));
    });
}

int32_t trt_profile_values(trt_profile* profile, char const* input, int64_t const* min, int64_t const* opt,
    int64_t const* max, int32_t count)
{
    return guarded([&] {
        IOptimizationProfile& p = of(profile);
        return status(set_values(p, input, OptProfileSelector::kMIN, min, count, 0)
            && set_values(p, input, OptProfileSelector::kOPT, opt, count, 0)
            && set_values(p, input, OptProfileSelector::kMAX, max, count, 0));
    });
}

int32_t trt_memory_view(trt_memory const* memory, void const** data, size_t* bytes)
{
    return guarded([&] {
        *data = of(memory).data();
        *bytes = of(memory).size();
        return int32_t{TRT_OK};
    });
}

int32_t trt_memory_destroy(trt_memory* memory)
{
    return destroy(reinterpret_cast<IHostMemory*>(memory));
}

} // extern "C"
