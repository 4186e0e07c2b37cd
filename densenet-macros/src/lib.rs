//! The `densenet!` macro: from a DenseNet spec to statically shaped dfdx types.
//!
//! The compiler is a library, `densenet-spec`, since a macro crate exports nothing but macros.

/// Compiles a DenseNet spec into statically shaped dfdx types.
///
/// ```ignore
/// densenet! {
///     /// The paper's DenseNet-201.
///     pub DenseNet201 {
///         blocks: [6, 12, 48, 32],   // layers of each block; required
///         k: 32,                     // growth rate, also one for each block: [32, 32, 48, 48]; required
///         theta: 0.5,                // compression in (0, 1]; by default 1
///         bottleneck,                // 1x1 convolutions to 4k maps; `bottleneck: 2` for 2k; by default plain layers
///         stem: imagenet,            // imagenet (7x7/2, max pool) or cifar (3x3); by default imagenet for 4 or more blocks
///         init: 64,                  // the stem's maps; by default 2k for DenseNet-BC and the ImageNet stem, else 16
///         input: [3, 224, 224],      // channels, height, width; by default 3x224x224 or 3x32x32, by the stem
///         classes: 1000,             // or their names: ["cat", "dog"]; by default 1000 or 10, by the stem
///         dropout: 0.2,              // in [0, 1); by default 0
///         memory: 24 GiB at 64,      // optional: a training step with batch 64 must fit (CPU, f32, SGD), or it does not compile
///     }
/// }
/// ```
///
/// The bare form `densenet! { blocks: [6, 12, 48, 32], k: 32 }` names the type `DenseNet`.
/// `floor(theta * m)` is computed from the digits of `theta`, exactly.
///
/// # What it generates
/// `DenseNet201<E = f32, D = Cpu>`, a struct with the fields `stem`, `block1`, `transition1`, ...,
/// `norm` and `classifier`, and a struct for each stage (`DenseNet201Stem`, `DenseNet201Block1`
/// with the fields `layer1`, ..., `DenseNet201Transition1`, ...). All of them are dfdx modules:
/// they are built by `device.build_module::<DenseNet201, f32>()`, and run by `forward` on a tensor
/// without a tape and `forward_mut` on one with a tape, for any batch size. Errors in training are
/// `nn::ForwardError`s. Each has its shapes in `PLAN`; the network has `PARAMETERS`,
/// `MULTIPLY_ADDS`, `LAYERS` and `training_bytes(batch, recompute)`, and implements `Network`.
/// `cargo doc` shows its architecture as a table.
///
/// # Names of classes
/// `classes: ["cat", "dog"]` names the classes: a label is an index into the list. The names are the
/// network's `CLASSES`, which is empty where only a number is given. Weights and checkpoints keep
/// them. Data, weights and checkpoints with other names, or with the same in another order, are
/// refused before a run. A folder of pictures numbers its classes in the order of their names.
///
/// # Errors
/// All mistakes in a spec are reported at once, each on its token.
///
/// # A crate that re-exports the macro
/// Generated code refers to `::densenet_runtime`. If that is not a dependency of the calling crate,
/// give its path: `#[densenet(crate = my_crate::densenet_runtime)]` above the name.
#[proc_macro]
pub fn densenet(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    densenet_spec::compile(input.into()).into()
}
