// An ONNX parser that parses nothing: there must be one beside the runtime.
#include <NvOnnxParser.h>

extern "C" __attribute__((visibility("default"))) int getNvOnnxParserVersion() noexcept
{
    return NV_ONNX_PARSER_VERSION;
}
