//! An fp32 ONNX model, with its matrix products in fp16.

use crate::Error;

/// Rewrites an fp32 ONNX model so that its matrix products (`MatMul`, `Gemm`) are computed in fp16, their weights
/// stored so; all else, inputs and outputs among it, stays fp32.
///
/// For TensorRT 11 and TensorRT-RTX, which compute in the types that the model has
/// ([`HAS_FP16_FLAG`](crate::HAS_FP16_FLAG)). It is [`onnx_half::products_in_half`], and what it leaves as it was is
/// told there.
pub fn products_in_half(model: &[u8]) -> Result<Vec<u8>, Error> {
    onnx_half::products_in_half(model).map_err(|e| Error::Argument {
        what: "the model",
        found: e.found,
        allowed: e.allowed,
    })
}
