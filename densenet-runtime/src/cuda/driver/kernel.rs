//! Kernels, and their arguments.
//!
//! The values of a launch are a struct ([`arguments`]), whose fields are the kernel's parameters
//! by name, in their order. When a kernel is looked up, the fields are compared with its
//! declaration in the source, so a launch itself has nothing left to check.

use std::marker::PhantomData;

use cudarc::driver::CudaFunction;
use cudarc::driver::sys::CUfunction_attribute;

use super::super::error::CudaError;
use super::{Address, Module, Source, driver_error};

/// Bytes of shared memory that a launch may give any kernel.
const UNASKED: usize = 48 << 10;

/// A value that a kernel is launched with.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A pointer.
    At(Address),
    /// An `int`.
    Int(i32),
}

/// A type that can be passed to a kernel.
pub trait Argument: Copy {
    /// Whether the parameter is a pointer; else it is an `int`.
    const POINTER: bool;

    /// The value.
    fn value(self) -> Value;
}

impl Argument for Address {
    const POINTER: bool = true;

    fn value(self) -> Value {
        Value::At(self)
    }
}

impl Argument for i32 {
    const POINTER: bool = false;

    fn value(self) -> Value {
        Value::Int(self)
    }
}

impl Argument for usize {
    const POINTER: bool = false;

    /// Saturates: sizes that do not fit were refused when the executor was made.
    fn value(self) -> Value {
        Value::Int(i32::try_from(self).unwrap_or(i32::MAX))
    }
}

impl Argument for bool {
    const POINTER: bool = false;

    fn value(self) -> Value {
        Value::Int(i32::from(self))
    }
}

/// The values of a launch; [`arguments`] makes structs of them.
pub trait Arguments {
    /// The name of each, in their order, and whether it is a pointer.
    const NAMED: &'static [(&'static str, bool)];

    /// Calls `with` on the values in their order.
    fn pass<R>(self, with: impl FnOnce(&[Value]) -> R) -> R;
}

/// Structs of the values that kernels are launched with. Fields have the names and the order of the
/// parameters in the kernel's source.
macro_rules! arguments {
    ($($(#[$docs:meta])* $visibility:vis struct $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$docs])*
        #[derive(Clone, Copy)]
        $visibility struct $name {
            $(pub $field: $kind,)*
        }

        impl $crate::cuda::driver::Arguments for $name {
            const NAMED: &'static [(&'static str, bool)] = &[$((
                stringify!($field),
                <$kind as $crate::cuda::driver::Argument>::POINTER,
            )),*];

            fn pass<R>(self, with: impl FnOnce(&[$crate::cuda::driver::Value]) -> R) -> R {
                use $crate::cuda::driver::Argument;
                with(&[$(self.$field.value()),*])
            }
        }
    )*};
}
pub(in super::super) use arguments;

/// A struct of the kernels of a program: `name: struct of its arguments`.
macro_rules! kernels {
    ($(#[$docs:meta])* $visibility:vis struct $name:ident { $($kernel:ident: $arguments:ty),* $(,)? }) => {
        $(#[$docs])*
        $visibility struct $name {
            $(pub $kernel: $crate::cuda::driver::Kernel<$arguments>,)*
        }

        impl $name {
            /// Finds them in their program.
            pub fn find(
                module: &$crate::cuda::driver::Module,
                source: &$crate::cuda::driver::Source,
            ) -> Result<Self, $crate::cuda::error::CudaError> {
                use $crate::cuda::driver::Kernel;
                Ok(Self {
                    $($kernel: Kernel::find(module, stringify!($kernel), source)?,)*
                })
            }
        }
    };
}
pub(in super::super) use kernels;

/// A parameter of a kernel, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelParameter {
    /// Its name.
    pub name: String,
    /// Its type, or what it points to, without `const`.
    pub of: String,
    /// Whether it is a pointer.
    pub pointer: bool,
}

/// A kernel, whatever its arguments.
pub struct Entry {
    pub name: &'static str,
    #[cfg(feature = "roofline")]
    pub declared: Declared,
    /// Bytes of shared memory that a launch gives it, which its constants say.
    pub(super) shared: usize,
    /// `None` on paper.
    pub(super) function: Option<CudaFunction>,
}

/// A kernel on paper.
#[cfg(feature = "roofline")]
pub struct Declared {
    /// Its program.
    pub family: &'static str,
    /// The constants that it was compiled with.
    pub constants: Vec<(&'static str, usize)>,
    pub parameters: Vec<KernelParameter>,
}

/// A kernel that is launched with such arguments.
pub struct Kernel<A> {
    entry: Entry,
    arguments: PhantomData<fn(A)>,
}

/// A launch of a kernel with values that fit its parameters: [`Kernel::launch`] alone makes one.
pub struct Launch<'a> {
    pub(super) kernel: &'a Entry,
    pub(super) grid: [usize; 3],
    pub(super) threads: usize,
    pub(super) values: &'a [Value],
}

#[cfg(feature = "roofline")]
impl<'a> Launch<'a> {
    /// The kernel.
    pub fn kernel(&self) -> &'a Entry {
        self.kernel
    }

    /// Blocks, along each axis.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes of shared memory beyond those that the kernel declares.
    pub fn shared(&self) -> usize {
        self.kernel.shared
    }

    /// The values of the kernel's parameters.
    pub fn values(&self) -> &'a [Value] {
        self.values
    }
}

impl<A: Arguments> Kernel<A> {
    /// Finds a kernel of a program; in a loaded one, or on paper.
    pub fn find(module: &Module, name: &'static str, source: &Source) -> Result<Self, CudaError> {
        let parameters = parameters(name, &source.text);
        check(name, &parameters, A::NAMED)?;
        let function = module.0.as_ref().map(|module| module.load_function(name));
        let function = function
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
            entry: Entry {
                name,
                #[cfg(feature = "roofline")]
                declared: Declared {
                    family: source.family,
                    constants: source.constants.clone(),
                    parameters,
                },
                shared,
                function,
            },
            arguments: PhantomData,
        })
    }

    /// Passes `to` a launch with these numbers of blocks along each axis, and of threads per block.
    pub fn launch<R>(
        &self,
        grid: [usize; 3],
        threads: usize,
        arguments: A,
        to: impl FnOnce(&Launch<'_>) -> R,
    ) -> R {
        arguments.pass(|values| {
            to(&Launch {
                kernel: &self.entry,
                grid,
                threads,
                values,
            })
        })
    }
}

/// Whether a launch's values have the names, the order and the kinds of a kernel's parameters.
fn check(
    kernel: &'static str,
    parameters: &[KernelParameter],
    named: &[(&str, bool)],
) -> Result<(), CudaError> {
    let fits = |(own, &(name, pointer)): (&KernelParameter, &(&str, bool))| {
        own.name == name && own.pointer == pointer && (pointer || own.of == "int")
    };
    if parameters.len() == named.len() && parameters.iter().zip(named).all(fits) {
        return Ok(());
    }
    let declared = |own: &KernelParameter| {
        let star = if own.pointer { "*" } else { "" };
        format!("{} {star}{}", own.of, own.name)
    };
    let given = |&(name, pointer): &(&str, bool)| match pointer {
        true => format!("*{name}"),
        false => format!("int {name}"),
    };
    Err(CudaError::Signature {
        kernel,
        expected: parameters
            .iter()
            .map(declared)
            .collect::<Vec<_>>()
            .join(", "),
        found: named.iter().map(given).collect::<Vec<_>>().join(", "),
    })
}

/// A kernel's parameters, from its declaration.
fn parameters(name: &str, source: &str) -> Vec<KernelParameter> {
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
            Some(KernelParameter {
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

    arguments! {
        struct Scaled { x: Address, scale: Address, count: usize }
    }

    /// The message for a kernel with these parameters that is launched with [`Scaled`].
    fn refused(parameters: &str) -> Option<String> {
        let source = Source {
            family: "test",
            text: format!("__global__ void scale_by({parameters}) {{}}"),
            constants: Vec::new(),
        };
        let found = Kernel::<Scaled>::find(&Module::on_paper(), "scale_by", &source);
        found.err().map(|error| error.to_string())
    }

    #[test]
    fn swapped_pointers_are_refused_when_a_kernel_is_found() {
        assert_eq!(refused("float *x, const float *scale, int count"), None);
        assert_eq!(
            refused("const float *scale, float *x, int count").as_deref(),
            Some(
                "kernel scale_by takes (float *scale, float *x, int count), but is launched with (*x, *scale, int count)"
            )
        );
    }

    #[test]
    fn other_kinds_and_counts_are_refused() {
        for parameters in [
            "float *x, float *scale, int *count",
            "float *x, float *scale, float count",
            "float *x, float *scale",
            "float *x, float *scale, int count, int stride",
        ] {
            assert!(refused(parameters).is_some(), "{parameters}");
        }
    }
}
