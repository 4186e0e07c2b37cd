densenet_runtime::densenet! {}

fn main() {}
