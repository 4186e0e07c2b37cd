//! A network may be named as something that generated code uses.

mod one {
    densenet_runtime::densenet! { pub Tensor { blocks: [2], k: 4 } }
}

mod two {
    densenet_runtime::densenet! { pub Module { blocks: [2], k: 4 } }
}

mod three {
    pub type Result = ();
    pub enum Option {}
    densenet_runtime::densenet! { pub Network { blocks: [2], k: 4 } }
}

fn main() {
    assert_eq!(one::Tensor::PARAMETERS, two::Module::PARAMETERS);
    assert_eq!(one::Tensor::PARAMETERS, three::Network::PARAMETERS);
}
