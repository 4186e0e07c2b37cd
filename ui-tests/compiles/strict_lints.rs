//! Generated code gives a strict crate nothing to complain about.

#![deny(warnings, missing_docs, missing_debug_implementations, unused, unreachable_pub)]
#![deny(unused_qualifications, single_use_lifetimes, elided_lifetimes_in_paths)]

mod inner {
    densenet_runtime::densenet! { Private { blocks: [2, 13], k: 3, bottleneck } }

    pub(crate) const PARAMETERS: usize = Private::PARAMETERS;
}

fn main() {
    densenet_runtime::densenet! { blocks: [2, 7], k: 4 }

    assert_ne!(inner::PARAMETERS, DenseNet::PARAMETERS);
}
