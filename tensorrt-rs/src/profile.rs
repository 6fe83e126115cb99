//! Which shapes an engine's dynamic inputs may take.

use std::ptr::NonNull;

use crate::tensor::c_name;
use crate::{Builder, Error, ffi};

/// An optimisation profile, made by [`Builder::profile`]: for each dynamic input the smallest, the usual and the
/// largest shape. It takes effect with [`BuilderConfig::add_profile`](crate::BuilderConfig::add_profile).
#[derive(Debug)]
pub struct OptimizationProfile<'b> {
    /// The builder's, which frees it.
    raw: NonNull<ffi::Profile>,
    builder: &'b Builder<'b>,
}

impl<'b> OptimizationProfile<'b> {
    pub(crate) fn owned(raw: NonNull<ffi::Profile>, builder: &'b Builder<'_>) -> Self {
        Self { raw, builder }
    }

    /// The shapes that `input` may take.
    pub fn shapes(
        &mut self,
        input: &str,
        min: &[i64],
        opt: &[i64],
        max: &[i64],
    ) -> Result<(), Error> {
        ordered("shapes of a profile", min, opt, max)?;
        let (logger, name) = (self.builder.logger(), c_name(input)?);
        let mark = logger.mark();
        let [min, opt, max] = [
            ffi::Dims::from_shape(input, min)?,
            ffi::Dims::from_shape(input, opt)?,
            ffi::Dims::from_shape(input, max)?,
        ];
        // SAFETY: a live profile, a string and dimensions.
        let status =
            unsafe { ffi::trt_profile_dims(self.raw.as_ptr(), name.as_ptr(), &min, &opt, &max) };
        logger.check("set a profile's shapes", mark, status)
    }

    /// The values that `input` may take, if it is itself a shape.
    pub fn values(
        &mut self,
        input: &str,
        min: &[i64],
        opt: &[i64],
        max: &[i64],
    ) -> Result<(), Error> {
        ordered("values of a profile", min, opt, max)?;
        let (logger, name) = (self.builder.logger(), c_name(input)?);
        let (mark, count) = (logger.mark(), min.len() as i32);
        // SAFETY: a live profile, a string and three times `count` numbers.
        let status = unsafe {
            ffi::trt_profile_values(
                self.raw.as_ptr(),
                name.as_ptr(),
                min.as_ptr(),
                opt.as_ptr(),
                max.as_ptr(),
                count,
            )
        };
        logger.check("set a profile's values", mark, status)
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::Profile {
        self.raw.as_ptr()
    }

    pub(crate) fn builder(&self) -> &'b Builder<'b> {
        self.builder
    }
}

/// Refuses what is not min ≤ opt ≤ max, all of one length.
fn ordered(what: &'static str, min: &[i64], opt: &[i64], max: &[i64]) -> Result<(), Error> {
    let alike = min.len() == opt.len() && opt.len() == max.len() && max.len() <= ffi::MAX_RANK;
    let rising = min
        .iter()
        .zip(opt)
        .zip(max)
        .all(|((min, opt), max)| min <= opt && opt <= max);
    match alike && rising {
        true => Ok(()),
        false => Err(Error::Argument {
            what,
            found: format!("{min:?} ≤ {opt:?} ≤ {max:?}"),
            allowed: "it must be min ≤ opt ≤ max, of one rank of at most 8",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_rises() {
        assert!(ordered("shapes", &[1, 8], &[4, 8], &[22, 8]).is_ok());
        assert!(ordered("shapes", &[5, 8], &[4, 8], &[22, 8]).is_err());
        assert!(ordered("shapes", &[1], &[4, 8], &[22, 8]).is_err());
        let error = ordered("shapes", &[1; 9], &[1; 9], &[1; 9])
            .unwrap_err()
            .to_string();
        assert!(error.contains("min ≤ opt ≤ max"), "{error}");
    }
}
