//! The files in `golden/`: PyTorch's results. `scripts/reference/make.py` made them and describes
//! their contents.

use densenet_runtime::plan::Plan;
use densenet_runtime::weights::{State, TensorFile, Unexpected};

/// One golden file, for a network with this plan.
///
/// The files belong to the repository, so whatever is wrong with one is a panic.
#[derive(Debug)]
pub struct Golden {
    /// The network's name.
    pub name: String,
    plan: Plan,
    file: TensorFile,
}

impl Golden {
    /// Opens the golden file of a network.
    ///
    /// # Panics
    /// If it is missing or damaged.
    pub fn open(name: &str, plan: &Plan) -> Self {
        let folder = cuda_emulator::root().join("tests/golden");
        let file = TensorFile::read(folder.join(format!("{name}.safetensors")));
        Self {
            name: name.to_string(),
            plan: plan.clone(),
            file: file.unwrap_or_else(|error| panic!("{error}")),
        }
    }

    /// Images, NCHW.
    pub fn images(&self) -> Vec<f32> {
        self.tensor("images")
    }

    /// The class of each image.
    ///
    /// # Panics
    /// If there are no labels, or one is not a class.
    pub fn labels(&self) -> Vec<u32> {
        let labels = self.file.integers("labels");
        let labels = labels.unwrap_or_else(|error| panic!("{error}"));
        labels
            .into_iter()
            .map(|label| u32::try_from(label).expect("a label is a small number"))
            .collect()
    }

    /// Learning rate of the steps.
    ///
    /// # Panics
    /// If the file does not have it.
    pub fn learning_rate(&self) -> f32 {
        let rate = self.file.note("rate").expect("the note `rate`");
        rate.parse().expect("a number")
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.names().iter().any(|own| own == name)
    }

    /// A tensor by its name in the file.
    ///
    /// # Panics
    /// If the file does not have it.
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        let values = self.file.floats(name);
        values.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The weights and running statistics at the start.
    ///
    /// # Panics
    /// If they are not those of the plan.
    pub fn start(&self) -> State {
        let state = State::from_file(&self.plan, &self.file, Unexpected::Ignore);
        state.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The gradients of the first step.
    pub fn gradients(&self) -> Vec<f32> {
        self.arena("grad.", true)
    }

    /// The running statistics after the first training pass.
    pub fn running_after_first_pass(&self) -> Vec<f32> {
        self.arena("step1.", false)
    }

    /// Weights and running statistics after three steps.
    pub fn after_three_steps(&self) -> State {
        State {
            parameters: self.arena("step3.", true),
            running: self.arena("step3.", false),
        }
    }

    /// The tensors with a prefix, in the plan's order.
    fn arena(&self, prefix: &str, trainable: bool) -> Vec<f32> {
        let parameters = self.plan.parameters();
        let wanted = parameters
            .iter()
            .filter(|parameter| parameter.role.is_trainable() == trainable);
        wanted
            .flat_map(|parameter| self.tensor(&format!("{prefix}{}", parameter.torchvision)))
            .collect()
    }
}
