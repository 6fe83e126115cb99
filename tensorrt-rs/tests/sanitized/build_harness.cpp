// Drives the shim by its C interface, for the sanitizers: harness LIBRARY PARSER (good|bad MODEL)…
// A good model is parsed and built, a bad one must be refused. Exit code 0 if all was as said.
#include "shim.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace
{

int32_t logged = 0;
int32_t reported = 0;
bool throwing = false;

void on_log(void*, int32_t severity, char const* message)
{
    logged += severity <= 1 ? 1 : 0;
    if (throwing)
    {
        throw 7;
    }
    // Reads every byte, so that the sanitizer sees whether they are there.
    static_cast<void>(std::string{message});
}

void on_error(void*, trt_parser_error const* error)
{
    ++reported;
    if (throwing)
    {
        throw std::runtime_error{"thrown by a callback"};
    }
    for (char const* text : {error->description, error->node_name, error->node_operator})
    {
        static_cast<void>(std::string{text == nullptr ? "" : text});
    }
}

void* symbol(char const* library, char const* name)
{
    void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void* const found = handle != nullptr ? dlsym(handle, name) : nullptr;
    if (found == nullptr)
    {
        std::fprintf(stderr, "%s: %s\n", library, dlerror());
        std::exit(2);
    }
    return found;
}

std::vector<char> contents(char const* path)
{
    std::ifstream file{path, std::ios::binary};
    return {std::istreambuf_iterator<char>{file}, {}};
}

bool wanted(bool right, char const* what)
{
    if (!right)
    {
        std::fprintf(stderr, "failed: %s\n", what);
    }
    return right;
}

// As the Rust side does: children before parents, the plan last of all.
bool run(void* create_builder, void* create_parser, char const* path, bool good)
{
    std::vector<char> const model = contents(path);
    // A library keeps its first logger: it stays, for the next run.
    static trt_logger* logger = nullptr;
    trt_builder* builder = nullptr;
    trt_network* network = nullptr;
    trt_config* config = nullptr;
    trt_parser* parser = nullptr;
    trt_memory* plan = nullptr;
    bool right = (logger != nullptr || trt_logger_create(&logger) == TRT_OK);
    right = right && trt_logger_attach(logger, on_log, nullptr) == TRT_OK;
    right = right && trt_builder_create(create_builder, logger, &builder) == TRT_OK;
    right = right && trt_builder_network(builder, 1, &network) == TRT_OK;
    right = right && trt_builder_config(builder, &config) == TRT_OK;
    right = right && trt_parser_create(create_parser, network, logger, &parser) == TRT_OK;
    if (!wanted(right, "create"))
    {
        return false;
    }
    int32_t const capability = 89;
    right = wanted(trt_config_compute_capabilities(config, &capability, 1) == TRT_OK, "target");
    int32_t const nowhere = 87;
    right = wanted(trt_config_flag(config, 99, 1) == TRT_UNSUPPORTED, "unknown flag") && right;
    int32_t const parsed = trt_parser_parse(parser, model.data(), model.size(), nullptr, on_error, nullptr);
    right = wanted((parsed == TRT_OK) == good, path) && right;
    int32_t layers = 0, inputs = 0, outputs = 0;
    right = wanted(trt_network_counts(network, &layers, &inputs, &outputs) == TRT_OK, "counts") && right;
    for (int32_t i = 0; good && i < inputs; ++i)
    {
        char const* name = nullptr;
        int32_t type = 0;
        trt_dims dims{};
        right = wanted(trt_network_tensor(network, 0, i, &name, &type, &dims) == TRT_OK, "tensor") && right;
        trt_profile* profile = nullptr;
        trt_dims most = dims;
        for (int32_t d = 0; d < dims.rank; ++d)
        {
            dims.extent[d] = dims.extent[d] < 0 ? 1 : dims.extent[d];
            most.extent[d] = most.extent[d] < 0 ? 22 : most.extent[d];
        }
        int32_t index = -1;
        right = wanted(trt_builder_profile(builder, &profile) == TRT_OK
                        && trt_profile_dims(profile, name, &dims, &most, &most) == TRT_OK
                        && trt_config_add_profile(config, profile, &index) == TRT_OK && index == 0,
                    "profile")
            && right;
    }
    if (good)
    {
        right = wanted(trt_builder_build(builder, network, config, &plan) == TRT_OK, "build") && right;
    }
    right = wanted(trt_config_compute_capabilities(config, &nowhere, 1) == TRT_REFUSED, "an unknown target") && right;
    trt_parser_destroy(parser);
    trt_network_destroy(network);
    trt_config_destroy(config);
    trt_builder_destroy(builder);
    if (plan != nullptr)
    {
        void const* data = nullptr;
        size_t bytes = 0;
        right = wanted(trt_memory_view(plan, &data, &bytes) == TRT_OK && bytes > 0, "plan") && right;
        std::vector<char> copy(bytes);
        std::memcpy(copy.data(), data, bytes);
        trt_memory_destroy(plan);
    }
    trt_logger_detach(logger);
    return right;
}

// What a callback throws stays inside, and is told.
bool exceptions_stay_inside(void* create_builder, void* create_parser)
{
    trt_logger* logger = nullptr;
    trt_builder* builder = nullptr;
    trt_network* network = nullptr;
    trt_parser* parser = nullptr;
    bool right = trt_logger_create(&logger) == TRT_OK && trt_logger_attach(logger, on_log, nullptr) == TRT_OK
        && trt_builder_create(create_builder, logger, &builder) == TRT_OK
        && trt_builder_network(builder, 1, &network) == TRT_OK
        && trt_parser_create(create_parser, network, logger, &parser) == TRT_OK;
    if (!wanted(right, "create"))
    {
        return false;
    }
    throwing = true;
    int32_t const threw = trt_parser_parse(parser, "no model", 8, nullptr, on_error, nullptr);
    throwing = false;
    right = wanted(threw == TRT_THREW && std::strcmp(trt_exception(), "thrown by a callback") == 0, "exception");
    trt_parser_destroy(parser);
    trt_network_destroy(network);
    trt_builder_destroy(builder);
    trt_logger_detach(logger);
    // The library's first logger: it stays.
    static trt_logger* const kept = logger;
    return right && kept != nullptr;
}

} // namespace

int main(int argc, char** argv)
{
    if (argc < 5 || argc % 2 == 0)
    {
        std::fprintf(stderr, "usage: %s LIBRARY PARSER (good|bad MODEL)...\n", argv[0]);
        return 2;
    }
    void* const create_builder = symbol(argv[1], "createInferBuilder_INTERNAL");
    void* const create_parser = symbol(argv[2], "createNvOnnxParser_INTERNAL");
    bool right = exceptions_stay_inside(create_builder, create_parser);
    for (int i = 3; i + 1 < argc; i += 2)
    {
        right = run(create_builder, create_parser, argv[i + 1], std::strcmp(argv[i], "good") == 0) && right;
    }
    std::printf("%d errors logged, %d reported by the parser\n", logged, reported);
    return right ? 0 : 1;
}
