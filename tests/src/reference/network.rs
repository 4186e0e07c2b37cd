//! A whole network, walked by its plan.

use std::collections::HashMap;

use densenet_runtime::plan::{Parameter, Plan, StemKind};
use densenet_runtime::weights::State;
use dfdx::prelude::*;

use super::conv::conv;
use super::maps::{Maps, Matrix, Vector, Window, each_row};
use super::norm::{Mode, Norm};
use super::pool::{average_pool, global_average_pool, max_pool};

/// A DenseNet of dfdx's public operations, in f64, with the state of a network of ours.
pub struct Reference {
    plan: Plan,
    parameters: HashMap<String, Parameter>,
    /// The trainable parameters, by field path.
    leaves: HashMap<String, Vector>,
    /// The arena of running statistics.
    running: Vec<f64>,
    /// The distance of the value nearest to a kink in the latest pass.
    margin: f64,
}

/// What a training pass makes.
#[derive(Clone, Debug)]
pub struct Derivative {
    /// Mean cross-entropy.
    pub loss: f64,
    /// Batch x classes.
    pub logits: Vec<f32>,
    /// The arena of gradients.
    pub gradients: Vec<f32>,
    /// How near the nearest value came to a kink of ReLU or max pooling, where a rounding error
    /// makes another gradient.
    pub margin: f64,
}

impl Reference {
    /// The network of a plan with these weights.
    pub fn new(plan: &Plan, state: &State) -> Self {
        let mut parameters = HashMap::new();
        let mut leaves = HashMap::new();
        for parameter in plan.parameters() {
            if parameter.role.is_trainable() {
                let values = state.of_parameter(&parameter);
                let values = values.iter().map(|&value| f64::from(value)).collect();
                let leaf = Cpu::default().tensor_from_vec(values, (parameter.len(),));
                leaves.insert(parameter.field.clone(), leaf);
            }
            parameters.insert(parameter.field.clone(), parameter);
        }
        Self {
            plan: plan.clone(),
            parameters,
            leaves,
            running: state.running.iter().map(|&value| value.into()).collect(),
            margin: f64::INFINITY,
        }
    }

    /// Logits with the running statistics: batch x classes. `images` is NCHW.
    pub fn evaluate(&mut self, images: &[f32]) -> Vec<f32> {
        let logits = self.forward::<NoneTape>(images, Mode::Evaluate);
        logits.as_vec().into_iter().map(|v| v as f32).collect()
    }

    /// Logits, loss and gradients with the batch's statistics, which move the running ones.
    pub fn differentiate(&mut self, images: &[f32], labels: &[u32]) -> Derivative {
        let classes = self.plan.classes();
        let logits = self.forward::<OwnedTape<f64, Cpu>>(images, Mode::Train);
        let values = logits.as_vec().into_iter().map(|v| v as f32).collect();
        let mut targets = vec![0.0; labels.len() * classes];
        for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
            row[label as usize] = 1.0;
        }
        let targets: Matrix = Cpu::default().tensor_from_vec(targets, (labels.len(), classes));
        let loss = cross_entropy_with_logits_loss(logits, targets);
        let loss_value = loss.array();
        let gradients = loss.backward();
        let mut arena = vec![0.0; self.plan.parameter_count()];
        for (field, leaf) in &self.leaves {
            let gradient = gradients.get(leaf).as_vec();
            let place = &mut arena[self.parameters[field].range()];
            for (to, from) in place.iter_mut().zip(gradient) {
                *to = from as f32;
            }
        }
        Derivative {
            loss: loss_value,
            logits: values,
            gradients: arena,
            margin: self.margin,
        }
    }

    /// The running statistics as they are now.
    pub fn running(&self) -> Vec<f32> {
        self.running.iter().map(|&value| value as f32).collect()
    }

    fn forward<T: Tape<f64, Cpu>>(&mut self, images: &[f32], mode: Mode) -> Matrix<T> {
        self.margin = f64::INFINITY;
        let plan = self.plan.clone();
        let stem = plan.stem();
        let maps = Maps::<T>::from_nchw(images, [stem.channels, stem.height, stem.width]);
        let window = match stem.kind {
            StemKind::ImageNet => window(7, 2, 3),
            StemKind::Cifar => window(3, 1, 1),
        };
        let mut maps = self.conv("stem.conv", maps, window);
        if stem.kind == StemKind::ImageNet {
            maps = self.norm_relu("stem.norm", maps, mode);
            maps = max_pool(maps, self::window(3, 2, 1), &mut self.margin);
        }
        for (index, block) in plan.blocks().iter().enumerate() {
            let number = index + 1;
            for layer in 1..=block.layers {
                let path = format!("block{number}.layer{layer}");
                let new = self.layer(&path, block.bottleneck.is_some(), maps.fork(), mode);
                maps = maps.concat(new);
            }
            if index < plan.transitions().len() {
                let path = format!("transition{number}");
                maps = self.norm_relu(&format!("{path}.norm"), maps, mode);
                maps = self.conv(&format!("{path}.conv"), maps, self::window(1, 1, 0));
                maps = average_pool(maps, self::window(2, 2, 0));
            }
        }
        let maps = self.norm_relu("norm", maps, mode);
        let pooled = global_average_pool(maps);
        let shape = (plan.classes(), plan.features());
        let weight = self.leaves["classifier.weight"].retaped::<T>();
        let weight = weight.reshape_like(&shape).permute::<(usize, usize), _>();
        let bias = self.leaves["classifier.bias"].retaped::<T>();
        let logits = pooled.matmul(weight);
        let shape = *logits.shape();
        logits + each_row(bias, shape)
    }

    fn layer<T: Tape<f64, Cpu>>(
        &mut self,
        path: &str,
        bottleneck: bool,
        maps: Maps<T>,
        mode: Mode,
    ) -> Maps<T> {
        if bottleneck {
            let maps = self.norm_relu(&format!("{path}.norm1"), maps, mode);
            let maps = self.conv(&format!("{path}.conv1"), maps, window(1, 1, 0));
            let maps = self.norm_relu(&format!("{path}.norm2"), maps, mode);
            self.conv(&format!("{path}.conv2"), maps, window(3, 1, 1))
        } else {
            let maps = self.norm_relu(&format!("{path}.norm"), maps, mode);
            self.conv(&format!("{path}.conv"), maps, window(3, 1, 1))
        }
    }

    fn conv<T: Tape<f64, Cpu>>(&self, path: &str, maps: Maps<T>, window: Window) -> Maps<T> {
        let field = format!("{path}.weight");
        let out = self.parameters[&field].shape[0];
        conv(maps, &self.leaves[&field], out, window)
    }

    fn norm_relu<T: Tape<f64, Cpu>>(&mut self, path: &str, maps: Maps<T>, mode: Mode) -> Maps<T> {
        let mean = &self.parameters[&format!("{path}.running_mean")];
        let var = &self.parameters[&format!("{path}.running_var")];
        let [mean, var] = self
            .running
            .get_disjoint_mut([mean.range(), var.range()])
            .expect("statistics do not overlap");
        let norm = Norm {
            scale: &self.leaves[&format!("{path}.scale")],
            bias: &self.leaves[&format!("{path}.bias")],
            mean,
            var,
            margin: &mut self.margin,
        };
        norm.relu(maps, mode)
    }
}

fn window(side: usize, stride: usize, padding: usize) -> Window {
    Window {
        side,
        stride,
        padding,
    }
}
