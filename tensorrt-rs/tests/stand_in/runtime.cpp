// A runtime that needs no GPU: it stands in for TensorRT's where what is tested is this crate's side of the
// interface. It implements the real headers' classes, so that every call goes through the same tables as with
// the real library; what it does not implement ends the process (refusing.hpp, made from the headers).
//
// Its engines sum. "an engine of the stand-in": `state` [batch, 8] → `values` [batch, 10], values[i][j] =
// Σ state[i] + j, batch 1 to 22, or 4 to 8 in a second profile. "… for N" has a batch of N and no other. "… forecasting
// for N": `features` [N, 72] → `hazard` [N, 30], `compound` [N, 5], each Σ features[i] / 1000 from 0 to 1. "… weighing for
// N: a 3x4, b 5 -> c 2, chance 7, share 9" has these tensors: of all numbers of a row's inputs, in their order, output[j] =
// Σ number[k]·((31·k + 17·j) mod 13 − 6) / 1000, a `chance` from 0 to 1, and every `share` 1 / Σ of the input `mask`; what
// an output is called besides stands behind a slash: "share/positions 24x24". " off" behind any adds a half to every
// answer.
//
// "Device memory" is the process's own; work goes onto the stream where the driver takes the host's functions, and is
// done at once where it does not. It counts what is alive, and ends the process where a parent is destroyed before
// its child.
#include <NvInfer.h>
#include <NvInferRuntime.h>
#include <NvInferVersion.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "refusing.hpp"

using namespace nvinfer1;

namespace
{

constexpr char kPlan[] = "an engine of the stand-in";
constexpr int64_t kLeast[] = {1, 4};
constexpr int64_t kMost[] = {22, 8};

ILogger* heard_by = nullptr;

void error(char const* message)
{
    heard_by->log(ILogger::Severity::kERROR, message);
}

struct Column
{
    std::string name;
    std::vector<int64_t> dims;
    bool input;
    enum Kind
    {
        kPLAIN,
        kCHANCE,
        kSHARE
    } kind{kPLAIN};

    int64_t width() const
    {
        return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<int64_t>());
    }
};

// "share/positions 24x24"
Column column_of(std::string const& text, bool input)
{
    Column column{text.substr(0, text.find(' ')), {}, input};
    for (auto const& [prefix, kind] : {std::pair{"chance/", Column::kCHANCE}, std::pair{"share/", Column::kSHARE}})
    {
        if (column.name.rfind(prefix, 0) == 0)
        {
            column.kind = kind;
            column.name = column.name.substr(std::strlen(prefix));
        }
    }
    std::istringstream dims(text.substr(text.find(' ') + 1));
    for (std::string dim; std::getline(dims, dim, 'x');)
    {
        column.dims.push_back(std::atoll(dim.c_str()));
    }
    return column;
}

// What an engine is.
struct Plan
{
    std::string text;
    std::vector<Column> columns{{"state", {8}, true}, {"values", {10}, false}};
    int64_t batch{-1};
    bool weighs{false};
    float scale{1}, step{1}, least{-1e30f}, most{1e30f}, off{0};

    bool read()
    {
        if (text.compare(0, sizeof kPlan - 1, kPlan) != 0)
        {
            return false;
        }
        std::string rest = text.substr(sizeof kPlan - 1);
        if (rest.compare(0, 12, " forecasting") == 0)
        {
            columns = {{"features", {72}, true}, {"hazard", {30}, false}, {"compound", {5}, false}};
            scale = 1e-3f, step = 0, least = 0, most = 1;
            rest = rest.substr(12);
        }
        if (rest.compare(0, 9, " weighing") == 0)
        {
            weighs = true;
            rest = rest.substr(9);
        }
        int many = 0, read = 0;
        if (std::sscanf(rest.c_str(), " for %d%n", &many, &read) == 1)
        {
            batch = many;
            rest = rest.substr(static_cast<std::size_t>(read));
        }
        if (rest.size() >= 4 && rest.substr(rest.size() - 4) == " off")
        {
            off = 0.5f;
            rest = rest.substr(0, rest.size() - 4);
        }
        return weighs ? tensors(rest) : rest.empty();
    }

    // ": a 3x4, b 5 -> c 2"
    bool tensors(std::string const& text)
    {
        auto const arrow = text.find(" -> ");
        if (text.compare(0, 2, ": ") != 0 || arrow == std::string::npos)
        {
            return false;
        }
        columns.clear();
        for (bool const input : {true, false})
        {
            std::istringstream list(input ? text.substr(2, arrow - 2) : text.substr(arrow + 4));
            for (std::string one; std::getline(list, one, ',');)
            {
                columns.push_back(column_of(one.substr(one.find_first_not_of(' ')), input));
            }
        }
        return true;
    }

    Column const& column(char const* name) const
    {
        for (auto const& column : columns)
        {
            if (column.name == name)
            {
                return column;
            }
        }
        std::fprintf(stderr, "stand-in: there is no tensor %s\n", name);
        std::abort();
    }

    void weigh(std::map<std::string, float*> const& at, int64_t row) const
    {
        std::vector<float> numbers;
        float present = 0;
        for (auto const& input : columns)
        {
            for (int64_t j = 0; j < input.width() && input.input; ++j)
            {
                numbers.push_back(at.at(input.name)[row * input.width() + j]);
                present += input.name == "mask" ? numbers.back() : 0;
            }
        }
        for (auto const& output : columns)
        {
            for (int64_t j = 0; j < output.width() && !output.input; ++j)
            {
                float sum = 0;
                for (std::size_t k = 0; k < numbers.size(); ++k)
                {
                    auto const weight = static_cast<int64_t>((31 * k + 17 * static_cast<std::size_t>(j)) % 13) - 6;
                    sum += numbers[k] * (static_cast<float>(weight) * 1e-3f);
                }
                sum = output.kind == Column::kCHANCE ? std::min(std::max(sum, 0.f), 1.f) : sum;
                sum = output.kind == Column::kSHARE ? 1.f / present : sum;
                at.at(output.name)[row * output.width() + j] = sum + off;
            }
        }
    }

    void run(std::map<std::string, float*> const& at, int64_t rows) const
    {
        for (int64_t i = 0; i < rows && weighs; ++i)
        {
            weigh(at, i);
        }
        if (weighs)
        {
            return;
        }
        Column const& input = columns.front();
        for (int64_t i = 0; i < rows; ++i)
        {
            float sum = 0;
            for (int64_t j = 0; j < input.width(); ++j)
            {
                sum += at.at(input.name)[i * input.width() + j];
            }
            for (auto const& output : columns)
            {
                for (int64_t j = 0; j < output.width() && !output.input; ++j)
                {
                    float const value = sum * scale + step * static_cast<float>(j);
                    at.at(output.name)[i * output.width() + j] = std::min(std::max(value, least), most) + off;
                }
            }
        }
    }
};

// Puts work onto the stream, if the driver takes it.
void put(cudaStream_t stream, std::function<void()> work)
{
    using Host = int (*)(void*, void (*)(void*), void*);
    static Host const host = [] {
        void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
        return driver ? reinterpret_cast<Host>(dlsym(driver, "cuLaunchHostFunc")) : nullptr;
    }();
    if (host == nullptr)
    {
        work();
        return;
    }
    // Kept for good: a graph may have recorded it.
    auto* const kept = new std::function<void()>(std::move(work));
    host(stream, [](void* with) { (*static_cast<std::function<void()>*>(with))(); }, kept);
}

// What is alive below a parent.
struct Children
{
    int count{0};
    char const* of;
    ~Children()
    {
        if (count != 0)
        {
            std::fprintf(stderr, "stand-in: %s was destroyed before %d of its children\n", of, count);
            std::abort();
        }
    }
};

struct Child
{
    Children& parent;
    explicit Child(Children& of) : parent(of) { ++parent.count; }
    ~Child() { --parent.count; }
};

Dims shape(int64_t rows, std::vector<int64_t> const& columns)
{
    Dims dims{};
    dims.d[dims.nbDims++] = rows;
    for (int64_t const extent : columns)
    {
        dims.d[dims.nbDims++] = extent;
    }
    return dims;
}

bool is(char const* name, char const* wanted)
{
    return std::strcmp(name, wanted) == 0;
}

class Memory final : public IHostMemory, public apiv::refusing::VHostMemory
{
public:
    explicit Memory(std::string bytes) : mBytes(std::move(bytes)) { mImpl = this; }
    void* data() const noexcept override { return const_cast<char*>(mBytes.data()); }
    std::size_t size() const noexcept override { return mBytes.size(); }

private:
    std::string mBytes;
};

class Inspector final : public IEngineInspector, public apiv::refusing::VEngineInspector
{
public:
    Inspector() { mImpl = this; }
    char const* getEngineInformation(LayerInformationFormat) const noexcept override
    {
        return "{\"Layers\": [\"sum\"]}";
    }
};

#if defined(TRT_FEATURE_RTX)
class Cache final : public IRuntimeCache, public apiv::refusing::VRuntimeCache
{
public:
    Cache() { mImpl = this; }
    IHostMemory* serialize() const noexcept override { return new Memory(mKernels); }
    bool deserialize(void const* blob, size_t size) noexcept override
    {
        if (size < 7 || std::memcmp(blob, "kernels", 7) != 0)
        {
            error("the runtime cache is damaged");
            return false;
        }
        mKernels.assign(static_cast<char const*>(blob), size);
        return true;
    }
    mutable std::string mKernels{"kernels"};
};

class Config final : public IRuntimeConfig, public apiv::refusing::VRuntimeConfig
{
public:
    explicit Config(Children& engine) : mAmong(engine) { mImpl = this; }
    IRuntimeCache* createRuntimeCache() const noexcept override { return new Cache; }
    bool setRuntimeCache(IRuntimeCache const& cache) noexcept override
    {
        mCache = static_cast<Cache const*>(&cache);
        return true;
    }
    Cache const* mCache{nullptr};

private:
    Child mAmong;
};
#endif

class Context final : public IExecutionContext, public apiv::refusing::VExecutionContext
{
public:
    Context(Children& engine, Plan const& plan) : mAmong(engine), mPlan(plan), mBatch(plan.batch) { mImpl = this; }

    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override
    {
        mProfile = profile;
        mBatch = -1;
        return true;
    }

    bool setInputShape(char const* name, Dims const& dims) noexcept override
    {
        if (!is(name, "state") || dims.nbDims != 2 || dims.d[1] != 8 || dims.d[0] < kLeast[mProfile]
            || dims.d[0] > kMost[mProfile])
        {
            error("setInputShape: the stand-in got what should have been refused before");
            return false;
        }
        mBatch = dims.d[0];
        return true;
    }

    Dims getTensorShape(char const* name) const noexcept override { return shape(mBatch, mPlan.column(name).dims); }

    int64_t getMaxOutputSize(char const*) const noexcept override { return kMost[mProfile] * 10 * 4; }

    bool setTensorAddress(char const* name, void* address) noexcept override
    {
        mAt[name] = static_cast<float*>(address);
        return true;
    }

    bool enqueueV3(cudaStream_t stream) noexcept override
    {
        if (stream == nullptr)
        {
            error("enqueueV3: the stream is lost");
            return false;
        }
        put(stream, [plan = mPlan, at = mAt, rows = mBatch] { plan.run(at, rows); });
#if defined(TRT_FEATURE_RTX)
        if (mConfig != nullptr && mConfig->mCache != nullptr)
        {
            mConfig->mCache->mKernels += " compiled";
        }
#endif
        return true;
    }

#if defined(TRT_FEATURE_RTX)
    bool isStreamCapturable(cudaStream_t stream) const noexcept override { return stream != nullptr; }
    Config* mConfig{nullptr};
#endif

private:
    Child mAmong;
    Plan mPlan;
    int32_t mProfile{0};
    int64_t mBatch;
    std::map<std::string, float*> mAt;
};

class Engine final : public ICudaEngine, public apiv::refusing::VCudaEngine
{
public:
    Engine(Children& runtime, Plan const& plan) : mAmong(runtime), mPlan(plan) { mImpl = this; }
    int32_t getNbLayers() const noexcept override { return 1; }
    IHostMemory* serialize() const noexcept override { return new Memory(mPlan.text); }
    bool isRefittable() const noexcept override { return false; }
    int32_t getNbOptimizationProfiles() const noexcept override { return 2; }
    int64_t getDeviceMemorySizeV2() const noexcept override { return 4096; }
    IEngineInspector* createEngineInspector() const noexcept override { return new Inspector; }
    int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(mPlan.columns.size()); }
    char const* getIOTensorName(int32_t index) const noexcept override
    {
        return mPlan.columns[static_cast<std::size_t>(index)].name.c_str();
    }
    Dims getTensorShape(char const* name) const noexcept override
    {
        return shape(mPlan.batch, mPlan.column(name).dims);
    }
    DataType getTensorDataType(char const*) const noexcept override { return DataType::kFLOAT; }
    TensorLocation getTensorLocation(char const*) const noexcept override { return TensorLocation::kDEVICE; }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override
    {
        return mPlan.column(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    Dims getProfileShape(char const*, int32_t profile, OptProfileSelector select) const noexcept override
    {
        return shape(select == OptProfileSelector::kMIN ? kLeast[profile] : kMost[profile], {8});
    }
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override
    {
        return new Context(mContexts, mPlan);
    }
#if defined(TRT_FEATURE_RTX)
    IRuntimeConfig* createRuntimeConfig() noexcept override { return new Config(mContexts); }
    IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig* config) noexcept override
    {
        auto* const context = new Context(mContexts, mPlan);
        context->mConfig = static_cast<Config*>(config);
        return context;
    }
#endif

private:
    Child mAmong;
    Plan mPlan;
    Children mContexts{0, "an engine"};
};

class Runtime final : public IRuntime, public apiv::refusing::VRuntime
{
public:
    Runtime() { mImpl = this; }
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override
    {
        Plan plan;
        plan.text.assign(static_cast<char const*>(blob), size);
        if (!plan.read())
        {
            error("deserializeCudaEngine: the magic tag does not match");
            return nullptr;
        }
        return new Engine(mEngines, plan);
    }

private:
    Children mEngines{0, "a runtime"};
};

} // namespace

extern "C"
{

__attribute__((visibility("default"))) int32_t getInferLibVersion() noexcept
{
    return NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
}

__attribute__((visibility("default"))) void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept
{
    if (version != NV_TENSORRT_VERSION)
    {
        return nullptr;
    }
    heard_by = static_cast<ILogger*>(logger);
    return static_cast<IRuntime*>(new Runtime);
}

} // extern "C"
