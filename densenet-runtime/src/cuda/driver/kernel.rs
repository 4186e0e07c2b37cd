//! Kernels, and what they are launched with.

use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute;
use cudarc::driver::{CudaFunction, CudaModule};

use super::super::compile::Source;
use super::super::error::CudaError;
use super::{Address, driver_error};

/// Bytes of shared memory that a launch may give any kernel.
const UNASKED: usize = 48 << 10;

/// A value that a kernel is launched with.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Value {
    /// A pointer.
    At(Address),
    /// An `int`.
    Int(i32),
}

impl From<Address> for Value {
    fn from(address: Address) -> Self {
        Self::At(address)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<usize> for Value {
    /// Saturates: sizes that do not fit were refused when the executor was made.
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).unwrap_or(i32::MAX))
    }
}

/// A parameter of a kernel, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type, or what it points to, without `const`.
    pub of: String,
    /// Whether it is a pointer.
    pub pointer: bool,
}

/// A kernel of a program.
pub(in super::super) struct Kernel {
    pub name: &'static str,
    /// The file that it is of.
    pub family: &'static str,
    /// The constants that it was compiled with.
    pub constants: Vec<(&'static str, usize)>,
    pub parameters: Vec<Parameter>,
    /// Bytes of shared memory that a launch gives it, which its constants say.
    pub shared: usize,
    /// Nothing on paper, where launches are counted and not done.
    pub(super) function: Option<CudaFunction>,
}

impl Kernel {
    /// Finds a kernel of a program; in a loaded one, or on paper.
    pub fn find(
        module: Option<&Arc<CudaModule>>,
        name: &'static str,
        source: &Source,
    ) -> Result<Self, CudaError> {
        let function = module
            .map(|module| module.load_function(name))
            .transpose()
            .map_err(|error| driver_error(&format!("looking for kernel {name}"), error))?;
        let constant = format!("{}_SHARED", name.to_uppercase());
        let mut constants = source.constants.iter();
        let shared = constants.find(|(own, _)| *own == constant);
        let shared = shared.map_or(0, |&(_, bytes)| bytes);
        if let Some(function) = function.as_ref().filter(|_| shared > UNASKED) {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function
                .set_attribute(most, i32::try_from(shared).unwrap_or(i32::MAX))
                .map_err(|error| {
                    let doing = format!("giving kernel {name} {shared} bytes of shared memory");
                    driver_error(&doing, error)
                })?;
        }
        Ok(Self {
            name,
            family: source.family,
            constants: source.constants.clone(),
            parameters: parameters(name, &source.text),
            shared,
            function,
        })
    }

    /// Whether these values can be the kernel's parameters.
    pub fn check(&self, values: &[Value]) -> Result<(), CudaError> {
        let expected: Vec<_> = self.parameters.iter().map(|own| own.pointer).collect();
        let found: Vec<_> = values
            .iter()
            .map(|value| matches!(value, Value::At(_)))
            .collect();
        if found == expected {
            return Ok(());
        }
        let say = |pointers: &[bool]| {
            let kinds = pointers.iter().map(|&p| if p { "pointer" } else { "int" });
            format!("({})", kinds.collect::<Vec<_>>().join(", "))
        };
        Err(CudaError::Signature {
            kernel: self.name,
            expected: say(&expected),
            found: say(&found),
        })
    }
}

/// A kernel's parameters, from its declaration.
fn parameters(name: &str, source: &str) -> Vec<Parameter> {
    let start = format!(" {name}(");
    let declared = source.split("__global__").skip(1).find_map(|text| {
        let (before, parameters) = text.split_once(&start)?;
        let own = !before.contains(['{', ';']);
        own.then(|| parameters.split(')').next())?
    });
    let declared = declared.unwrap_or_default().split(',');
    declared
        .filter_map(|text| {
            let words = text.replace('*', " ");
            let words: Vec<_> = words
                .split_whitespace()
                .filter(|word| !matches!(*word, "const" | "__restrict__"))
                .collect();
            let (name, of) = words.split_last()?;
            Some(Parameter {
                name: (*name).to_owned(),
                of: of.join(" "),
                pointer: text.contains('*'),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_from_the_declaration() {
        let source = "void other() { Add add(x, y); }\n\
            __global__ void __launch_bounds__(256) add(const unsigned char *x,\n float *y, int n) {";
        let expected = [
            ("x", "unsigned char", true),
            ("y", "float", true),
            ("n", "int", false),
        ];
        let found = parameters("add", source);
        let found: Vec<_> = found
            .iter()
            .map(|own| (own.name.as_str(), own.of.as_str(), own.pointer))
            .collect();
        assert_eq!(found, expected);
        assert!(parameters("missing", source).is_empty());
    }
}
