// The C interface of the shim: what src/ffi.rs declares again in Rust, line by line.
//
// Rules that hold for every function here:
// - No exception crosses it: what is thrown inside becomes TRT_THREW, and trt_exception() says what it was.
// - It returns a status; results go through the pointers that come last. On any status but TRT_OK they are
//   left alone.
// - Objects are opaque and are destroyed by the function named for it, children before parents.
// - Text that it hands to a callback is valid during that call only.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

enum
{
    TRT_OK = 0,          // done
    TRT_REFUSED = 1,     // TensorRT said no: the logger has heard why
    TRT_UNSUPPORTED = 2, // the release that the headers are of has no such thing
    TRT_THREW = 3,       // an exception was caught
};

enum
{
    TRT_MAX_RANK = 8
};

typedef struct
{
    int32_t rank; // below 0 where TensorRT has no answer
    int64_t extent[TRT_MAX_RANK];
} trt_dims;

typedef struct
{
    int32_t code;
    int32_t node; // index in the graph, below 0 where there is none
    char const* description;
    char const* node_name;
    char const* node_operator;
} trt_parser_error;

typedef void (*trt_log_fn)(void* user, int32_t severity, char const* message);
typedef void (*trt_text_fn)(void* user, char const* text);
typedef void (*trt_parser_error_fn)(void* user, trt_parser_error const* error);

typedef struct trt_logger trt_logger;
typedef struct trt_builder trt_builder;
typedef struct trt_network trt_network;
typedef struct trt_parser trt_parser;
typedef struct trt_config trt_config;
typedef struct trt_profile trt_profile;
typedef struct trt_timing_cache trt_timing_cache;
typedef struct trt_memory trt_memory;
typedef struct trt_runtime trt_runtime;
typedef struct trt_engine trt_engine;
typedef struct trt_context trt_context;

// What the headers are of: major, minor, patch, and the ONNX parser's number.
void trt_headers(int32_t* major, int32_t* minor, int32_t* patch, int32_t* parser);
// What the last TRT_THREW of this thread was.
char const* trt_exception(void);

// A logger is silent until it is attached and after it is detached; detaching waits for a call under way.
int32_t trt_logger_create(trt_logger** logger);
int32_t trt_logger_attach(trt_logger* logger, trt_log_fn log, void* user);
int32_t trt_logger_detach(trt_logger* logger);
int32_t trt_logger_destroy(trt_logger* logger);
// Says something to the logger, as TensorRT would.
int32_t trt_logger_say(trt_logger* logger, int32_t severity, char const* message);

// `create` is the library's createInferBuilder_INTERNAL.
int32_t trt_builder_create(void* create, trt_logger* logger, trt_builder** builder);
int32_t trt_builder_destroy(trt_builder* builder);
int32_t trt_builder_network(trt_builder* builder, int32_t strongly_typed, trt_network** network);
int32_t trt_builder_config(trt_builder* builder, trt_config** config);
int32_t trt_builder_profile(trt_builder* builder, trt_profile** profile); // the builder's: not to be destroyed
int32_t trt_builder_build(trt_builder* builder, trt_network* network, trt_config* config, trt_memory** plan);

int32_t trt_network_destroy(trt_network* network);
int32_t trt_network_counts(trt_network const* network, int32_t* layers, int32_t* inputs, int32_t* outputs);
// The i-th input (output = 0) or output (output = 1). The name is the network's.
int32_t trt_network_tensor(
    trt_network const* network, int32_t output, int32_t i, char const** name, int32_t* type, trt_dims* dims);
int32_t trt_network_set_input_dims(trt_network* network, char const* name, trt_dims const* dims);

// `create` is the parser library's createNvOnnxParser_INTERNAL. The parser owns weights that the network points
// into, and looks at the network when it is destroyed: destroy it after the build, and before the network.
int32_t trt_parser_create(void* create, trt_network* network, trt_logger* logger, trt_parser** parser);
int32_t trt_parser_destroy(trt_parser* parser);
int32_t trt_parser_parse(trt_parser* parser, void const* model, size_t bytes, char const* path,
    trt_parser_error_fn error, void* user);

// TRT_FLAG_*: switches of a build.
enum
{
    TRT_FLAG_FP16 = 0,
    TRT_FLAG_TF32 = 1,
    TRT_FLAG_REFIT = 2,
    TRT_FLAG_STRIP_WEIGHTS = 3,
    TRT_FLAG_VERSION_COMPATIBLE = 4,
};

int32_t trt_config_destroy(trt_config* config);
int32_t trt_config_flag(trt_config* config, int32_t flag, int32_t on);
int32_t trt_config_workspace(trt_config* config, size_t bytes);
int32_t trt_config_optimization_level(trt_config* config, int32_t level);
int32_t trt_config_detailed_layers(trt_config* config, int32_t on);
int32_t trt_config_aux_streams(trt_config* config, int32_t most);
int32_t trt_config_compute_capabilities(trt_config* config, int32_t const* capabilities, int32_t count);
int32_t trt_config_add_profile(trt_config* config, trt_profile const* profile, int32_t* index);
// The cache must outlive the builder of the config.
int32_t trt_config_timing_cache(trt_config* config, void const* blob, size_t bytes, trt_timing_cache** cache);
int32_t trt_timing_cache_serialize(trt_timing_cache const* cache, trt_memory** blob);
int32_t trt_timing_cache_destroy(trt_timing_cache* cache);

int32_t trt_profile_dims(
    trt_profile* profile, char const* input, trt_dims const* min, trt_dims const* opt, trt_dims const* max);
int32_t trt_profile_values(trt_profile* profile, char const* input, int64_t const* min, int64_t const* opt,
    int64_t const* max, int32_t count);

int32_t trt_memory_view(trt_memory const* memory, void const** data, size_t* bytes);
int32_t trt_memory_destroy(trt_memory* memory);

// `create` is the library's createInferRuntime_INTERNAL. Only where a driver has been initialised: without one
// some releases return a pointer to nothing.
int32_t trt_runtime_create(void* create, trt_logger* logger, trt_runtime** runtime);
int32_t trt_runtime_destroy(trt_runtime* runtime);
int32_t trt_runtime_deserialize(trt_runtime* runtime, void const* plan, size_t bytes, trt_engine** engine);

typedef struct
{
    char const* name; // the engine's
    int32_t type;
    int32_t is_input;
    int32_t on_host; // read from or written to host memory
    trt_dims dims;   // -1 where dynamic
} trt_tensor;

int32_t trt_engine_destroy(trt_engine* engine);
int32_t trt_engine_counts(trt_engine const* engine, int32_t* tensors, int32_t* profiles, int32_t* layers);
int32_t trt_engine_facts(trt_engine const* engine, int64_t* device_memory, int32_t* refittable);
int32_t trt_engine_tensor(trt_engine const* engine, int32_t i, trt_tensor* tensor);
int32_t trt_engine_profile_dims(
    trt_engine const* engine, char const* input, int32_t profile, trt_dims* min, trt_dims* opt, trt_dims* max);
int32_t trt_engine_serialize(trt_engine const* engine, trt_memory** plan);
int32_t trt_engine_inspect(trt_engine const* engine, trt_text_fn json, void* user);
// The two creators are createInferRefitter_INTERNAL and createNvOnnxParserRefitter_INTERNAL.
int32_t trt_engine_refit(trt_engine* engine, void* create_refitter, void* create_parser_refitter,
    trt_logger* logger, void const* model, size_t bytes, trt_parser_error_fn error, void* user);

// `cache` may be null. With use_cache = 0 no runtime cache is made.
int32_t trt_context_create(
    trt_engine* engine, int32_t use_cache, void const* cache, size_t cache_bytes, trt_context** context);
int32_t trt_context_destroy(trt_context* context);
int32_t trt_context_cache(trt_context const* context, trt_memory** blob);
int32_t trt_context_profile(trt_context* context, int32_t profile, void* stream);
int32_t trt_context_set_dims(trt_context* context, char const* input, trt_dims const* dims);
int32_t trt_context_dims(trt_context const* context, char const* tensor, trt_dims* dims);
int32_t trt_context_max_output_bytes(trt_context const* context, char const* tensor, int64_t* bytes);
int32_t trt_context_bind(trt_context* context, char const* tensor, void* address);
int32_t trt_context_capturable(trt_context const* context, void* stream, int32_t* capturable);
int32_t trt_context_enqueue(trt_context* context, void* stream);

#ifdef __cplusplus
}
#endif
