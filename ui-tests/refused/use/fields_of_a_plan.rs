//! A plan cannot be changed into one whose stages do not go together.

use densenet_runtime::plan::Plan;

fn changed(mut plan: Plan) -> Plan {
    plan.classes = 1 << 60;
    Plan {
        dropout: 2.0,
        ..plan
    }
}

fn main() {
    let _ = changed;
}
