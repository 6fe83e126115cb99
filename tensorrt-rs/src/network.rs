//! A network: what is to be built.

use std::ptr::{self, NonNull};

use crate::error::text;
use crate::logger::plain;
use crate::tensor::c_name;
use crate::{Builder, DataType, Error, Tensor, ffi};

/// A network definition, made by [`Builder::network`] and filled by a [`Parser`](crate::Parser).
#[derive(Debug)]
pub struct Network<'b> {
    raw: NonNull<ffi::Network>,
    /// It owns weights that the network points into, so that it must live until the engine is built; and it
    /// looks at the network when it is destroyed, so that it must go first.
    parser: Option<NonNull<ffi::Parser>>,
    builder: &'b Builder<'b>,
}

impl<'b> Network<'b> {
    pub(crate) fn owned(raw: NonNull<ffi::Network>, builder: &'b Builder<'_>) -> Self {
        Self {
            raw,
            parser: None,
            builder,
        }
    }

    /// How many layers it has.
    pub fn layers(&self) -> usize {
        self.counts()[0]
    }

    /// Its inputs.
    pub fn inputs(&self) -> Vec<Tensor> {
        (0..self.counts()[1])
            .filter_map(|i| self.tensor(true, i))
            .collect()
    }

    /// Its outputs.
    pub fn outputs(&self) -> Vec<Tensor> {
        (0..self.counts()[2])
            .filter_map(|i| self.tensor(false, i))
            .collect()
    }

    /// Gives an input another shape; with it, dynamic dimensions become static (−1 leaves one dynamic).
    ///
    /// Static dimensions stay as the model has them: the weights were made for them.
    pub fn set_input_shape(&mut self, input: &str, shape: &[i64]) -> Result<(), Error> {
        let inputs = self.inputs();
        let known = find("input", &inputs, input)?;
        let fits = known.shape.len() == shape.len()
            && known
                .shape
                .iter()
                .zip(shape)
                .all(|(&is, &new)| is == new || (is < 0 && new >= -1));
        if !fits {
            return Err(Error::WrongShape {
                name: input.to_owned(),
                found: shape.to_vec(),
                allowed: format!("the model has {:?}", known.shape),
            });
        }
        let (logger, name) = (self.builder.logger(), c_name(input)?);
        let (mark, dims) = (logger.mark(), ffi::Dims::from_shape(input, shape)?);
        // SAFETY: a live network, a string and dimensions.
        let status =
            unsafe { ffi::trt_network_set_input_dims(self.raw.as_ptr(), name.as_ptr(), &dims) };
        logger.check("set an input's shape", mark, status)
    }

    pub(crate) fn as_ptr(&mut self) -> *mut ffi::Network {
        self.raw.as_ptr()
    }

    pub(crate) fn builder(&self) -> &'b Builder<'b> {
        self.builder
    }

    /// Whether a parser has been at it.
    pub(crate) fn is_taken(&self) -> bool {
        self.parser.is_some()
    }

    pub(crate) fn keep(&mut self, parser: NonNull<ffi::Parser>) {
        self.parser = Some(parser);
    }

    fn counts(&self) -> [usize; 3] {
        let (mut layers, mut inputs, mut outputs) = (0, 0, 0);
        // SAFETY: a live network; three numbers are written.
        unsafe {
            ffi::trt_network_counts(self.raw.as_ptr(), &mut layers, &mut inputs, &mut outputs)
        };
        [layers, inputs, outputs].map(|n| usize::try_from(n).unwrap_or(0))
    }

    fn tensor(&self, is_input: bool, i: usize) -> Option<Tensor> {
        let (mut name, mut kind, mut dims) = (ptr::null(), 0, ffi::Dims::default());
        let (output, i) = (i32::from(!is_input), i32::try_from(i).ok()?);
        // SAFETY: a live network; the name that is written is the network's, and copied at once.
        let name = unsafe {
            let status = ffi::trt_network_tensor(
                self.raw.as_ptr(),
                output,
                i,
                &mut name,
                &mut kind,
                &mut dims,
            );
            plain("look at a tensor", status).ok()?;
            text(name)
        };
        let holds = DataType::from_number(kind);
        Some(Tensor {
            name,
            holds,
            shape: dims.to_shape(),
            is_input,
            on_host: false,
        })
    }
}

/// The tensor of that name.
pub(crate) fn find<'t>(
    what: &'static str,
    tensors: &'t [Tensor],
    name: &str,
) -> Result<&'t Tensor, Error> {
    tensors.iter().find(|t| t.name == name).ok_or_else(|| {
        let have: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        Error::NoSuchTensor {
            what,
            name: name.to_owned(),
            have: have.join(", "),
        }
    })
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once; the parser, which looks at the network once more, before it.
        unsafe {
            if let Some(parser) = self.parser.take() {
                ffi::trt_parser_destroy(parser.as_ptr());
            }
            ffi::trt_network_destroy(self.raw.as_ptr());
        }
    }
}
