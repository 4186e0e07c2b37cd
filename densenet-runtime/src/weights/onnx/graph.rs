//! A plan and a state as a graph of ONNX's operators.

use densenet_plan::norm::EPSILON;
use densenet_plan::{Parameter, Plan, Role, StemKind};
use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::proto::{Attribute, Element, Message, Node, batch_of, tensor};
use super::{ExportOptions, Output};
use crate::weights::State;

/// The images, batch x channels x height x width.
pub(super) const IMAGES: &str = "images";
/// The logits, batch x classes.
const LOGITS: &str = "logits";
/// What Softmax or Sigmoid makes of them.
const PROBABILITIES: &str = "probabilities";

/// A number that f16 does not have, and the tensor that holds it.
pub(super) struct BeyondF16 {
    pub name: String,
    pub found: f32,
}

/// A convolution's weight, a BN's four tensors, or the classifier's two.
type Module<'a> = &'a [Parameter];

/// A module's name: the names of its tensors without their last part.
fn module(parameter: &Parameter) -> &str {
    let name = &parameter.torchvision;
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

/// An operator's output. Values and operators could have the same names, but some programs look up
/// both in one table.
fn output_of(operator: &str) -> String {
    format!("{operator}.output")
}

/// The name of a part without tensors, a sibling of the module that outputs this value.
fn beside(value: &str, name: &str) -> String {
    let parent = value.rsplitn(3, '.').nth(2).unwrap_or_default();
    format!("{parent}.{name}")
}

/// The graph while it is built. Each method takes the names of values and returns that of its own.
/// It adds nodes in the order of the plan's tensors, which it takes module by module.
struct Builder<'a, Modules> {
    state: &'a State,
    modules: Modules,
    fold: bool,
    element: Element,
    nodes: Message,
    tensors: Message,
}

/// The graph (`GraphProto`) of a network with this state, whose lengths are the plan's.
pub(super) fn graph(
    plan: &Plan,
    state: &State,
    options: &ExportOptions,
) -> Result<Message, BeyondF16> {
    let element = options.element();
    let bytes = element.size() * (plan.parameter_count() + plan.running_count());
    let parameters = plan.parameters();
    let modules = parameters.chunk_by(|a, b| module(a) == module(b));
    let mut builder = Builder {
        state,
        modules,
        fold: options.fold,
        element,
        nodes: Message::default(),
        tensors: Message::with_capacity(bytes + bytes / 100),
    };
    builder.network(plan, options)?;
    let Builder {
        nodes: mut before,
        tensors: mut graph,
        ..
    } = builder;
    before.text(2, "DenseNet");
    graph.precede(before);
    let stem = plan.stem();
    let image = [stem.channels, stem.height, stem.width];
    graph.message(11, &batch_of(IMAGES, &image));
    graph.message(12, &batch_of(output(options.output), &[plan.classes()]));
    Ok(graph)
}

/// The name of what the graph gives.
pub(super) fn output(output: Output) -> &'static str {
    match output {
        Output::Logits => LOGITS,
        Output::Softmax | Output::Sigmoid => PROBABILITIES,
    }
}

impl<'a, Modules: Iterator<Item = Module<'a>>> Builder<'a, Modules> {
    fn network(&mut self, plan: &Plan, options: &ExportOptions) -> Result<(), BeyondF16> {
        let mut maps = match self.element {
            Element::F32 => IMAGES.to_string(),
            Element::F16 => {
                let to = [Attribute::Int("to", Element::F16 as usize)];
                self.node("Cast", "to_f16", &[IMAGES], &to)
            }
        };
        let stem = plan.stem();
        maps = match stem.kind {
            StemKind::Cifar => self.conv(&maps, stem.stride())?,
            StemKind::ImageNet => {
                let maps = self.conv_norm_relu(&maps, stem.stride())?;
                // The plan's sides round up, as with one row of padding and the mode `floor`.
                let attributes = [
                    Attribute::Ints("kernel_shape", &[3, 3]),
                    Attribute::Ints("pads", &[1; 4]),
                    Attribute::Ints("strides", &[2, 2]),
                ];
                self.node("MaxPool", &beside(&maps, "pool0"), &[&maps], &attributes)
            }
        };
        for (index, block) in plan.blocks().iter().enumerate() {
            for layer in block.iter() {
                maps = self.layer(&maps, layer.bottleneck.is_some())?;
            }
            if index < plan.transitions().len() {
                maps = self.transition(&maps)?;
            }
        }
        let maps = self.norm_relu(&maps)?;
        let pooled = self.node("GlobalAveragePool", "avgpool", &[&maps], &[]);
        let axis = [Attribute::Int("axis", 1)];
        let features = self.node("Flatten", "flatten", &[&pooled], &axis);
        self.classifier(&features)?;
        let ending = match options.output {
            Output::Logits => return Ok(()),
            Output::Softmax => Node {
                operator: "Softmax",
                name: "softmax",
                inputs: &[LOGITS],
                output: PROBABILITIES,
                attributes: &axis,
            },
            Output::Sigmoid => Node {
                operator: "Sigmoid",
                name: "sigmoid",
                inputs: &[LOGITS],
                output: PROBABILITIES,
                attributes: &[],
            },
        };
        self.nodes.message(1, &ending.message());
        Ok(())
    }

    /// The maps before a layer, followed by its own.
    fn layer(&mut self, maps: &str, has_bottleneck: bool) -> Result<String, BeyondF16> {
        let mut read = self.norm_relu(maps)?;
        if has_bottleneck {
            read = self.conv_norm_relu(&read, 1)?;
        }
        let own = self.conv(&read, 1)?;
        let axis = [Attribute::Int("axis", 1)];
        Ok(self.node("Concat", &beside(&own, "concat"), &[maps, &own], &axis))
    }

    fn transition(&mut self, maps: &str) -> Result<String, BeyondF16> {
        let read = self.norm_relu(maps)?;
        let compressed = self.conv(&read, 1)?;
        // The plan's sides round down: an odd last row or column is left out.
        let attributes = [
            Attribute::Ints("kernel_shape", &[2, 2]),
            Attribute::Ints("strides", &[2, 2]),
        ];
        let name = beside(&compressed, "pool");
        Ok(self.node("AveragePool", &name, &[&compressed], &attributes))
    }

    /// Logits in f32, whatever the format of the computation.
    fn classifier(&mut self, features: &str) -> Result<(), BeyondF16> {
        let tensors = self.module();
        for tensor in tensors {
            let values = self.state.of_parameter(tensor);
            self.tensor(&tensor.torchvision, &tensor.shape, values)?;
        }
        let name = module(&tensors[0]);
        let halves = output_of(name);
        let gemm = Node {
            operator: "Gemm",
            name,
            inputs: &[features, &tensors[0].torchvision, &tensors[1].torchvision],
            output: match self.element {
                Element::F32 => LOGITS,
                Element::F16 => &halves,
            },
            attributes: &[Attribute::Int("transB", 1)],
        };
        self.nodes.message(1, &gemm.message());
        if let Element::F16 = self.element {
            let cast = Node {
                operator: "Cast",
                name: "to_f32",
                inputs: &[&halves],
                output: LOGITS,
                attributes: &[Attribute::Int("to", Element::F32 as usize)],
            };
            self.nodes.message(1, &cast.message());
        }
        Ok(())
    }

    /// A convolution, the BN after it, folded or as a node of its own, and ReLU.
    fn conv_norm_relu(&mut self, maps: &str, stride: usize) -> Result<String, BeyondF16> {
        if !self.fold {
            let convolved = self.conv(maps, stride)?;
            return self.norm_relu(&convolved);
        }
        let (conv, norm) = (&self.module()[0], self.module());
        let [scale, shift] = self.affine(norm);
        let weight = self.state.of_parameter(conv);
        let of_map = weight.len() / conv.shape[0];
        let scaled: Vec<f32> = weight
            .chunks_exact(of_map)
            .zip(scale)
            .flat_map(|(own, scale)| own.iter().map(move |own| (f64::from(*own) * scale) as f32))
            .collect();
        self.tensor(&conv.torchvision, &conv.shape, &scaled)?;
        let bias = format!("{}.bias", module(conv));
        let shift: Vec<f32> = shift.into_iter().map(|own| own as f32).collect();
        self.tensor(&bias, &conv.shape[..1], &shift)?;
        let convolved = self.convolution(conv, stride, &[maps, &conv.torchvision, &bias]);
        Ok(self.relu(norm, &convolved))
    }

    fn conv(&mut self, maps: &str, stride: usize) -> Result<String, BeyondF16> {
        let conv = &self.module()[0];
        let values = self.state.of_parameter(conv);
        self.tensor(&conv.torchvision, &conv.shape, values)?;
        Ok(self.convolution(conv, stride, &[maps, &conv.torchvision]))
    }

    /// The node of a convolution that keeps the sides, except for the stride.
    fn convolution(&mut self, conv: &Parameter, stride: usize, inputs: &[&str]) -> String {
        let kernel = &conv.shape[2..];
        let attributes = [
            Attribute::Ints("kernel_shape", kernel),
            Attribute::Ints("pads", &[kernel[0] / 2; 4]),
            Attribute::Ints("strides", &[stride; 2]),
        ];
        self.node("Conv", module(conv), inputs, &attributes)
    }

    fn norm_relu(&mut self, maps: &str) -> Result<String, BeyondF16> {
        let norm = self.module();
        let mut inputs = vec![maps];
        for tensor in norm {
            let values = self.state.of_parameter(tensor);
            self.tensor(&tensor.torchvision, &tensor.shape, values)?;
            // They have the order of the operator's inputs: scale, shift, mean, variance.
            inputs.push(&tensor.torchvision);
        }
        let attributes = [Attribute::Float("epsilon", EPSILON as f32)];
        let name = module(&norm[0]);
        let normalised = self.node("BatchNormalization", name, &inputs, &attributes);
        Ok(self.relu(norm, &normalised))
    }

    /// `relu1` after `norm1`.
    fn relu(&mut self, norm: Module<'_>, maps: &str) -> String {
        let (before, number) = module(&norm[0]).rsplit_once("norm").unwrap_or_default();
        self.node("Relu", &format!("{before}relu{number}"), &[maps], &[])
    }

    /// A BN as a multiply-add: what it multiplies by, and what it adds.
    fn affine(&self, norm: Module<'_>) -> [Vec<f64>; 2] {
        let of = |role: Role| {
            let tensor = norm.iter().find(|tensor| tensor.role == role);
            let values = tensor.map_or(&[][..], |tensor| self.state.of_parameter(tensor));
            values.iter().map(|&value| f64::from(value))
        };
        let scale: Vec<f64> = of(Role::NormScale)
            .zip(of(Role::RunningVar))
            .map(|(gamma, variance)| gamma / (variance + EPSILON).sqrt())
            .collect();
        let moved = of(Role::RunningMean).zip(&scale);
        let shift = of(Role::NormBias)
            .zip(moved)
            .map(|(beta, (mean, scale))| beta - mean * scale)
            .collect();
        [scale, shift]
    }

    /// The tensors of the next module.
    fn module(&mut self) -> Module<'a> {
        let next = self.modules.next();
        next.expect("a plan has the tensors of its stages")
    }

    /// Adds a tensor of these values.
    fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<(), BeyondF16> {
        let bytes = values.len() * self.element.size();
        let header = tensor(name, shape, self.element, bytes);
        self.tensors.open(5, header.len() + bytes);
        self.tensors.append(&header);
        match self.element {
            Element::F32 => self
                .tensors
                .bytes(values.iter().flat_map(|own| own.to_le_bytes())),
            Element::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                if let Some(index) = halves.iter().position(|own| own.is_infinite()) {
                    return Err(BeyondF16 {
                        name: name.to_string(),
                        found: values[index],
                    });
                }
                self.tensors
                    .bytes(halves.iter().flat_map(|own| own.to_le_bytes()));
            }
        }
        Ok(())
    }

    /// Adds an operator; returns the name of its output.
    fn node(
        &mut self,
        operator: &'static str,
        name: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let output = output_of(name);
        let node = Node {
            operator,
            name,
            inputs,
            output: &output,
            attributes,
        };
        self.nodes.message(1, &node.message());
        output
    }
}
