//! `shim/shim.h`, declared again in Rust. What each function does and promises is said there.

use std::ffi::{c_char, c_void};

pub const OK: i32 = 0;
pub const REFUSED: i32 = 1;
pub const UNSUPPORTED: i32 = 2;
pub const THREW: i32 = 3;

pub const FLAG_FP16: i32 = 0;
pub const FLAG_TF32: i32 = 1;
pub const FLAG_REFIT: i32 = 2;
pub const FLAG_STRIP_WEIGHTS: i32 = 3;
pub const FLAG_VERSION_COMPATIBLE: i32 = 4;

/// The highest rank of a tensor.
pub const MAX_RANK: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Dims {
    pub rank: i32,
    pub extent: [i64; MAX_RANK],
}

#[repr(C)]
#[derive(Debug)]
pub struct ParserError {
    pub code: i32,
    pub node: i32,
    pub description: *const c_char,
    pub node_name: *const c_char,
    pub node_operator: *const c_char,
}

#[repr(C)]
#[derive(Debug)]
pub struct Tensor {
    pub name: *const c_char,
    pub kind: i32,
    pub is_input: i32,
    pub on_host: i32,
    pub dims: Dims,
}

pub type LogFn = unsafe extern "C" fn(user: *mut c_void, severity: i32, message: *const c_char);
pub type TextFn = unsafe extern "C" fn(user: *mut c_void, text: *const c_char);
pub type ParserErrorFn = unsafe extern "C" fn(user: *mut c_void, error: *const ParserError);

macro_rules! opaque {
    ($($name:ident)*) => {$(
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            _opaque: [u8; 0],
            _neither_send_nor_sync: std::marker::PhantomData<*mut u8>,
        }
    )*};
}

opaque!(Logger Builder Network Parser Config Profile TimingCache Memory Runtime Engine Context);

unsafe extern "C" {
    pub fn trt_headers(major: *mut i32, minor: *mut i32, patch: *mut i32, parser: *mut i32);
    pub fn trt_exception() -> *const c_char;

    pub fn trt_logger_create(logger: *mut *mut Logger) -> i32;
    pub fn trt_logger_attach(logger: *mut Logger, log: LogFn, user: *mut c_void) -> i32;
    pub fn trt_logger_detach(logger: *mut Logger) -> i32;
    #[cfg(test)]
    pub fn trt_logger_say(logger: *mut Logger, severity: i32, message: *const c_char) -> i32;

    pub fn trt_builder_create(
        create: *mut c_void,
        logger: *mut Logger,
        builder: *mut *mut Builder,
    ) -> i32;
    pub fn trt_builder_destroy(builder: *mut Builder) -> i32;
    pub fn trt_builder_network(
        builder: *mut Builder,
        strongly_typed: i32,
        network: *mut *mut Network,
    ) -> i32;
    pub fn trt_builder_config(builder: *mut Builder, config: *mut *mut Config) -> i32;
    pub fn trt_builder_profile(builder: *mut Builder, profile: *mut *mut Profile) -> i32;
    pub fn trt_builder_build(
        builder: *mut Builder,
        network: *mut Network,
        config: *mut Config,
        plan: *mut *mut Memory,
    ) -> i32;

    pub fn trt_network_destroy(network: *mut Network) -> i32;
    pub fn trt_network_counts(
        network: *const Network,
        layers: *mut i32,
        inputs: *mut i32,
        outputs: *mut i32,
    ) -> i32;
    pub fn trt_network_tensor(
        network: *const Network,
        output: i32,
        i: i32,
        name: *mut *const c_char,
        kind: *mut i32,
        dims: *mut Dims,
    ) -> i32;
    pub fn trt_network_set_input_dims(
        network: *mut Network,
        name: *const c_char,
        dims: *const Dims,
    ) -> i32;

    pub fn trt_parser_create(
        create: *mut c_void,
        network: *mut Network,
        logger: *mut Logger,
        parser: *mut *mut Parser,
    ) -> i32;
    pub fn trt_parser_destroy(parser: *mut Parser) -> i32;
    pub fn trt_parser_parse(
        parser: *mut Parser,
        model: *const c_void,
        bytes: usize,
        path: *const c_char,
        error: ParserErrorFn,
        user: *mut c_void,
    ) -> i32;

    pub fn trt_config_destroy(config: *mut Config) -> i32;
    pub fn trt_config_flag(config: *mut Config, flag: i32, on: i32) -> i32;
    pub fn trt_config_workspace(config: *mut Config, bytes: usize) -> i32;
    pub fn trt_config_optimization_level(config: *mut Config, level: i32) -> i32;
    pub fn trt_config_detailed_layers(config: *mut Config, on: i32) -> i32;
    pub fn trt_config_aux_streams(config: *mut Config, most: i32) -> i32;
    pub fn trt_config_compute_capabilities(
        config: *mut Config,
        capabilities: *const i32,
        count: i32,
    ) -> i32;
    pub fn trt_config_add_profile(
        config: *mut Config,
        profile: *const Profile,
        index: *mut i32,
    ) -> i32;
    pub fn trt_config_timing_cache(
        config: *mut Config,
        blob: *const c_void,
        bytes: usize,
        cache: *mut *mut TimingCache,
    ) -> i32;
    pub fn trt_timing_cache_serialize(cache: *const TimingCache, blob: *mut *mut Memory) -> i32;
    pub fn trt_timing_cache_destroy(cache: *mut TimingCache) -> i32;

    pub fn trt_profile_dims(
        profile: *mut Profile,
        input: *const c_char,
        min: *const Dims,
        opt: *const Dims,
        max: *const Dims,
    ) -> i32;
    pub fn trt_profile_values(
        profile: *mut Profile,
        input: *const c_char,
        min: *const i64,
        opt: *const i64,
        max: *const i64,
        count: i32,
    ) -> i32;

    pub fn trt_memory_view(
        memory: *const Memory,
        data: *mut *const c_void,
        bytes: *mut usize,
    ) -> i32;
    pub fn trt_memory_destroy(memory: *mut Memory) -> i32;

    pub fn trt_runtime_create(
        create: *mut c_void,
        logger: *mut Logger,
        runtime: *mut *mut Runtime,
    ) -> i32;
    pub fn trt_runtime_destroy(runtime: *mut Runtime) -> i32;
    pub fn trt_runtime_deserialize(
        runtime: *mut Runtime,
        plan: *const c_void,
        bytes: usize,
        engine: *mut *mut Engine,
    ) -> i32;

    pub fn trt_engine_destroy(engine: *mut Engine) -> i32;
    pub fn trt_engine_counts(
        engine: *const Engine,
        tensors: *mut i32,
        profiles: *mut i32,
        layers: *mut i32,
    ) -> i32;
    pub fn trt_engine_facts(
        engine: *const Engine,
        device_memory: *mut i64,
        refittable: *mut i32,
    ) -> i32;
    pub fn trt_engine_tensor(engine: *const Engine, i: i32, tensor: *mut Tensor) -> i32;
    pub fn trt_engine_profile_dims(
        engine: *const Engine,
        input: *const c_char,
        profile: i32,
        min: *mut Dims,
        opt: *mut Dims,
        max: *mut Dims,
    ) -> i32;
    pub fn trt_engine_serialize(engine: *const Engine, plan: *mut *mut Memory) -> i32;
    pub fn trt_engine_inspect(engine: *const Engine, json: TextFn, user: *mut c_void) -> i32;
    pub fn trt_engine_refit(
        engine: *mut Engine,
        create_refitter: *mut c_void,
        create_parser_refitter: *mut c_void,
        logger: *mut Logger,
        model: *const c_void,
        bytes: usize,
        error: ParserErrorFn,
        user: *mut c_void,
    ) -> i32;

    pub fn trt_context_create(
        engine: *mut Engine,
        use_cache: i32,
        cache: *const c_void,
        cache_bytes: usize,
        context: *mut *mut Context,
    ) -> i32;
    pub fn trt_context_destroy(context: *mut Context) -> i32;
    pub fn trt_context_cache(context: *const Context, blob: *mut *mut Memory) -> i32;
    pub fn trt_context_profile(context: *mut Context, profile: i32, stream: *mut c_void) -> i32;
    pub fn trt_context_set_dims(
        context: *mut Context,
        input: *const c_char,
        dims: *const Dims,
    ) -> i32;
    pub fn trt_context_dims(context: *const Context, tensor: *const c_char, dims: *mut Dims)
    -> i32;
    pub fn trt_context_max_output_bytes(
        context: *const Context,
        tensor: *const c_char,
        bytes: *mut i64,
    ) -> i32;
    pub fn trt_context_bind(
        context: *mut Context,
        tensor: *const c_char,
        address: *mut c_void,
    ) -> i32;
    pub fn trt_context_capturable(
        context: *const Context,
        stream: *mut c_void,
        capturable: *mut i32,
    ) -> i32;
    pub fn trt_context_enqueue(context: *mut Context, stream: *mut c_void) -> i32;
}
