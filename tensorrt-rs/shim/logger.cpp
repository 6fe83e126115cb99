// The logger: passes on what TensorRT says.
//
// A library keeps the first logger that it is given for good (its `getLogger()`), whatever is destroyed
// later. So a logger is never freed while a library is loaded: the Rust side detaches it, keeps it, and attaches
// it again for the next user.
#include "shim.hpp"

#include <cstdio>
#include <mutex>
#include <shared_mutex>

namespace
{

thread_local char last_exception[512] = "";

class Logger final : public nvinfer1::ILogger
{
public:
    // Threads of TensorRT's may speak at the same time; only attaching and detaching are exclusive.
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override
    {
        (void) shim::guarded([&] {
            std::shared_lock<std::shared_mutex> const lock{mMutex};
            if (mLog != nullptr)
            {
                mLog(mUser, static_cast<int32_t>(severity), message == nullptr ? "" : message);
            }
            return int32_t{TRT_OK};
        });
    }

    void attach(trt_log_fn log, void* user)
    {
        std::unique_lock<std::shared_mutex> const lock{mMutex};
        mLog = log;
        mUser = user;
    }

private:
    std::shared_mutex mMutex;
    trt_log_fn mLog{nullptr};
    void* mUser{nullptr};
};

Logger& own(trt_logger* logger) noexcept
{
    return *reinterpret_cast<Logger*>(logger);
}

} // namespace

void shim::remember(char const* what) noexcept
{
    std::snprintf(last_exception, sizeof last_exception, "%s", what);
}

nvinfer1::ILogger& shim::logger_of(trt_logger* logger) noexcept
{
    return own(logger);
}

extern "C"
{

void trt_headers(int32_t* major, int32_t* minor, int32_t* patch, int32_t* parser)
{
    *major = NV_TENSORRT_MAJOR;
    *minor = NV_TENSORRT_MINOR;
    *patch = NV_TENSORRT_PATCH;
    *parser = NV_ONNX_PARSER_VERSION;
}

char const* trt_exception(void)
{
    return last_exception;
}

int32_t trt_logger_create(trt_logger** logger)
{
    return shim::guarded([&] { return shim::hand_out(new Logger, logger); });
}

int32_t trt_logger_attach(trt_logger* logger, trt_log_fn log, void* user)
{
    return shim::guarded([&] {
        own(logger).attach(log, user);
        return int32_t{TRT_OK};
    });
}

int32_t trt_logger_detach(trt_logger* logger)
{
    return trt_logger_attach(logger, nullptr, nullptr);
}

int32_t trt_logger_destroy(trt_logger* logger)
{
    return shim::guarded([&] {
        delete &own(logger);
        return int32_t{TRT_OK};
    });
}

int32_t trt_logger_say(trt_logger* logger, int32_t severity, char const* message)
{
    own(logger).log(static_cast<nvinfer1::ILogger::Severity>(severity), message);
    return TRT_OK;
}

} // extern "C"
