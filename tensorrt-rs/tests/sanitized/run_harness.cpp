// Drives the shim's running side by its C interface, for the sanitizers. The runtime is the tests' own
// (tests/stand_in), linked in, so that no GPU is needed and the sanitizers see both sides. Exit code 0 if all was as
// said.
#include "shim.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept;

namespace
{

constexpr char kPlan[] = "an engine of the stand-in";
constexpr char kFixed[] = "an engine of the stand-in for 3";
constexpr int32_t kStateWidth = 8;
constexpr int32_t kValuesWidth = 10;
#if defined(TRT_FEATURE_RTX)
constexpr bool kHasCache = true;
#else
constexpr bool kHasCache = false;
#endif

bool right = true;
std::string last_heard;

void on_log(void*, int32_t, char const* message)
{
    last_heard = message;
}

void on_error(void*, trt_parser_error const*) {}

void keep_text(void* into, char const* text)
{
    *static_cast<std::string*>(into) = text;
}

void throwing_text(void*, char const*)
{
    throw std::runtime_error{"thrown by a callback"};
}

void wanted(bool so, char const* what)
{
    if (!so)
    {
        std::fprintf(stderr, "failed: %s\n", what);
        right = false;
    }
}

// What makes objects, and does not.
void* makes_nothing(void*, int32_t) noexcept
{
    return nullptr;
}

void* refits_nothing(void*, void*, int32_t) noexcept
{
    return nullptr;
}

trt_dims dims_of(std::vector<int64_t> const& extents)
{
    trt_dims dims{};
    dims.rank = static_cast<int32_t>(extents.size());
    for (size_t i = 0; i < extents.size(); ++i)
    {
        dims.extent[i] = extents[i];
    }
    return dims;
}

bool is(trt_dims const& dims, std::vector<int64_t> const& extents)
{
    return dims.rank == static_cast<int32_t>(extents.size()) && std::equal(extents.begin(), extents.end(), dims.extent);
}

// A copy on the heap that ends where the plan ends: a byte read behind it is found.
trt_engine* load(trt_runtime* runtime, char const* plan)
{
    std::vector<char> const exact(plan, plan + std::strlen(plan));
    trt_engine* engine = nullptr;
    wanted(trt_runtime_deserialize(runtime, exact.data(), exact.size(), &engine) == TRT_OK, plan);
    return engine;
}

std::string contents(trt_memory* memory)
{
    void const* data = nullptr;
    size_t bytes = 0;
    wanted(trt_memory_view(memory, &data, &bytes) == TRT_OK, "view");
    std::string const copy{static_cast<char const*>(data), bytes};
    wanted(trt_memory_destroy(memory) == TRT_OK, "memory destroyed");
    return copy;
}

void an_engine_is_described(trt_engine* engine)
{
    int32_t tensors = 0, profiles = 0, layers = 0, refittable = 1;
    int64_t device_memory = 0;
    wanted(trt_engine_counts(engine, &tensors, &profiles, &layers) == TRT_OK && tensors == 2 && profiles == 2
            && layers == 1,
        "counts");
    wanted(trt_engine_facts(engine, &device_memory, &refittable) == TRT_OK && device_memory == 4096 && refittable == 0,
        "facts");
    for (int32_t i = 0; i < tensors; ++i)
    {
        trt_tensor tensor{};
        std::vector<int64_t> const shape{-1, i == 0 ? kStateWidth : kValuesWidth};
        wanted(trt_engine_tensor(engine, i, &tensor) == TRT_OK && is(tensor.dims, shape), "tensor");
        wanted(std::strcmp(tensor.name, i == 0 ? "state" : "values") == 0 && tensor.is_input == (i == 0), "name");
    }
    trt_dims low{}, best{}, high{};
    wanted(trt_engine_profile_dims(engine, "state", 1, &low, &best, &high) == TRT_OK && is(low, {4, kStateWidth})
            && is(high, {8, kStateWidth}),
        "profile");
    std::string json;
    wanted(trt_engine_inspect(engine, keep_text, &json) == TRT_OK && json.find("Layers") != std::string::npos,
        "inspect");
    wanted(trt_engine_inspect(engine, throwing_text, nullptr) == TRT_THREW
            && std::strcmp(trt_exception(), "thrown by a callback") == 0,
        "what a callback throws stays inside");
    trt_memory* plan = nullptr;
    wanted(trt_engine_serialize(engine, &plan) == TRT_OK && contents(plan) == kPlan, "serialize");
}

// Binds buffers that are exactly as large as said, runs, and looks at the answers.
void a_context_runs(trt_context* context, int32_t rows, float first)
{
    int32_t stream = 0;
    std::vector<float> state(static_cast<size_t>(rows * kStateWidth), first);
    std::vector<float> values(static_cast<size_t>(rows * kValuesWidth), -1.f);
    wanted(trt_context_bind(context, "state", state.data()) == TRT_OK
            && trt_context_bind(context, "values", values.data()) == TRT_OK,
        "bind");
    wanted(trt_context_enqueue(context, nullptr) == TRT_REFUSED && last_heard.find("the stream is lost") != std::string::npos,
        "a run without a stream");
    wanted(trt_context_enqueue(context, &stream) == TRT_OK, "enqueue");
    wanted(values.front() == first * kStateWidth && values.back() == first * kStateWidth + kValuesWidth - 1, "answers");
    int32_t capturable = -1;
    int32_t const asked = trt_context_capturable(context, &stream, &capturable);
    wanted(asked == TRT_UNSUPPORTED || (asked == TRT_OK && capturable == 1), "capturable");
}

void contexts_come_and_go(trt_runtime* runtime, trt_engine* engine)
{
    trt_context* context = nullptr;
    wanted(trt_context_create(engine, 0, nullptr, 0, &context) == TRT_OK, "context");
    trt_dims const three = dims_of({3, kStateWidth}), too_many = dims_of({23, kStateWidth});
    trt_dims found{};
    int64_t bytes = 0;
    wanted(trt_context_set_dims(context, "state", &too_many) == TRT_REFUSED, "23 rows");
    wanted(trt_context_set_dims(context, "state", &three) == TRT_OK, "3 rows");
    wanted(trt_context_dims(context, "values", &found) == TRT_OK && is(found, {3, kValuesWidth}), "shape of the answers");
    wanted(trt_context_max_output_bytes(context, "values", &bytes) == TRT_OK && bytes == 22 * kValuesWidth * 4, "bytes");
    a_context_runs(context, 3, 0.5f);
    int32_t stream = 0;
    trt_dims const eight = dims_of({8, kStateWidth});
    wanted(trt_context_profile(context, 1, &stream) == TRT_OK
            && trt_context_set_dims(context, "state", &eight) == TRT_OK,
        "the other profile");
    a_context_runs(context, 8, 2.f);
    trt_memory* none = nullptr;
    wanted(trt_context_cache(context, &none) == TRT_UNSUPPORTED && none == nullptr, "a context without a cache");
    wanted(trt_context_destroy(context) == TRT_OK, "context destroyed");

    trt_engine* const fixed = load(runtime, kFixed);
    wanted(trt_context_create(fixed, 0, nullptr, 0, &context) == TRT_OK, "context of 3");
    a_context_runs(context, 3, 1.f);
    wanted(trt_context_destroy(context) == TRT_OK && trt_engine_destroy(fixed) == TRT_OK, "engine of 3 destroyed");
}

void a_cache_goes_round(trt_engine* engine)
{
    trt_context* context = nullptr;
    int32_t const made = trt_context_create(engine, 1, nullptr, 0, &context);
    if (!kHasCache)
    {
        wanted(made == TRT_UNSUPPORTED && context == nullptr, "no cache in this release");
        return;
    }
    trt_dims const one = dims_of({1, kStateWidth});
    wanted(made == TRT_OK && trt_context_set_dims(context, "state", &one) == TRT_OK, "context with a cache");
    a_context_runs(context, 1, 3.f);
    trt_memory* blob = nullptr;
    wanted(trt_context_cache(context, &blob) == TRT_OK, "cache");
    std::string const kept = contents(blob);
    wanted(kept.find("compiled") != std::string::npos && trt_context_destroy(context) == TRT_OK, "kernels kept");
    wanted(trt_context_create(engine, 1, kept.data(), kept.size(), &context) == TRT_OK
            && trt_context_destroy(context) == TRT_OK,
        "the cache is taken");
    // Refused half way: what was made until then goes away.
    context = nullptr;
    wanted(trt_context_create(engine, 1, "junk", 4, &context) == TRT_REFUSED && context == nullptr, "a damaged cache");
}

void refusals_leave_nothing(trt_logger* logger, trt_runtime* runtime, trt_engine* engine)
{
    trt_runtime* no_runtime = nullptr;
    wanted(trt_runtime_create(reinterpret_cast<void*>(makes_nothing), logger, &no_runtime) == TRT_REFUSED
            && no_runtime == nullptr,
        "no runtime");
    trt_engine* none = nullptr;
    std::vector<char> const junk(3, 'x');
    wanted(trt_runtime_deserialize(runtime, junk.data(), junk.size(), &none) == TRT_REFUSED && none == nullptr
            && last_heard.find("magic tag") != std::string::npos,
        "no plan");
    void* const refits = reinterpret_cast<void*>(refits_nothing);
    wanted(trt_engine_refit(engine, refits, refits, logger, "model", 5, on_error, nullptr) == TRT_REFUSED, "refit");
}

} // namespace

int main()
{
    trt_logger* logger = nullptr;
    trt_runtime* runtime = nullptr;
    wanted(trt_logger_create(&logger) == TRT_OK && trt_logger_attach(logger, on_log, nullptr) == TRT_OK
            && trt_runtime_create(reinterpret_cast<void*>(createInferRuntime_INTERNAL), logger, &runtime) == TRT_OK,
        "create");
    trt_engine* const engine = right ? load(runtime, kPlan) : nullptr;
    if (engine == nullptr)
    {
        return 1;
    }
    an_engine_is_described(engine);
    contexts_come_and_go(runtime, engine);
    a_cache_goes_round(engine);
    refusals_leave_nothing(logger, runtime, engine);
    wanted(trt_engine_destroy(engine) == TRT_OK && trt_runtime_destroy(runtime) == TRT_OK, "destroyed");
    wanted(trt_logger_detach(logger) == TRT_OK && trt_logger_destroy(logger) == TRT_OK, "logger destroyed");
    return right ? 0 : 1;
}
