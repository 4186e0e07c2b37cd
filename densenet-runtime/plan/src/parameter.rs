//! The tensors of a plan by name, in the order in which dfdx visits a generated network.

use crate::{Block, ConvTensor, LayerTensors, NormTensors, Plan, Span, StemKind, Tensors};

/// The role of a tensor in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A convolution's weight: maps out, maps in, height, width.
    ConvWeight,
    /// BN's scale, gamma.
    NormScale,
    /// BN's shift, beta.
    NormBias,
    /// BN's running mean; not trained.
    RunningMean,
    /// BN's running variance, unbiased; not trained.
    RunningVar,
    /// The classifier's weight: classes, features.
    LinearWeight,
    /// The classifier's bias.
    LinearBias,
}

impl Role {
    /// Whether the optimiser changes it.
    pub const fn is_trainable(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }
}

/// One tensor of a network: a trainable parameter or a running statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Path of fields in the generated struct: `block1.layer1.norm1.scale`.
    pub field: String,
    /// Name in torchvision's checkpoints: `features.denseblock1.denselayer1.norm1.weight`.
    pub torchvision: String,
    /// Its role.
    pub role: Role,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its offset among the trainable parameters or the running statistics, whichever it belongs
    /// to.
    pub offset: usize,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements, which never happens in a valid plan.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its range among the trainable parameters or the running statistics.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// The tensors of the map, with names.
#[derive(Default)]
struct List(Vec<Parameter>);

impl List {
    fn push(
        &mut self,
        field: String,
        torchvision: String,
        role: Role,
        (at, shape): (Span, &[usize]),
    ) {
        self.0.push(Parameter {
            field,
            torchvision,
            role,
            shape: shape.to_vec(),
            offset: at.start,
        });
    }

    fn conv(&mut self, field: &str, torchvision: &str, conv: ConvTensor) {
        let shape = [conv.maps, conv.channels, conv.kernel, conv.kernel];
        self.push(
            format!("{field}.weight"),
            format!("{torchvision}.weight"),
            Role::ConvWeight,
            (conv.weight, &shape),
        );
    }

    fn norm(&mut self, field: &str, torchvision: &str, norm: NormTensors) {
        for (ours, theirs, role, at) in [
            ("scale", "weight", Role::NormScale, norm.scale),
            ("bias", "bias", Role::NormBias, norm.bias),
            ("running_mean", "running_mean", Role::RunningMean, norm.mean),
            (
                "running_var",
                "running_var",
                Role::RunningVar,
                norm.variance,
            ),
        ] {
            self.push(
                format!("{field}.{ours}"),
                format!("{torchvision}.{theirs}"),
                role,
                (at, &[at.len]),
            );
        }
    }

    fn layer(&mut self, field: &str, theirs: &str, layer: &LayerTensors) {
        let at = |name: &str| (format!("{field}.{name}"), format!("{theirs}.{name}"));
        let ((norm1, their_norm1), (conv1, their_conv1)) = (at("norm1"), at("conv1"));
        let Some((narrow, norm)) = layer.narrow else {
            self.norm(&format!("{field}.norm"), &their_norm1, layer.norm1);
            return self.conv(&format!("{field}.conv"), &their_conv1, layer.conv);
        };
        let ((norm2, their_norm2), (conv2, their_conv2)) = (at("norm2"), at("conv2"));
        self.norm(&norm1, &their_norm1, layer.norm1);
        self.conv(&conv1, &their_conv1, narrow);
        self.norm(&norm2, &their_norm2, norm);
        self.conv(&conv2, &their_conv2, layer.conv);
    }
}

impl Plan {
    /// Every tensor of the network, trainable or running statistic, in the order in which dfdx
    /// visits the generated struct: the [map](Plan::tensors), with names.
    pub fn parameters(&self) -> Vec<Parameter> {
        let Tensors {
            stem,
            blocks,
            transitions,
            head,
        } = self.tensors();
        let mut list = List::default();
        list.conv("stem.conv", "features.conv0", stem.conv);
        if let Some(norm) = stem.norm {
            list.norm("stem.norm", "features.norm0", norm);
        }
        for (number, layers) in (1..).zip(&blocks) {
            for (layer, tensors) in (1..).zip(layers) {
                let field = format!("block{number}.layer{layer}");
                let theirs = format!("features.denseblock{number}.denselayer{layer}");
                list.layer(&field, &theirs, tensors);
            }
            if let Some(transition) = transitions.get(number - 1) {
                let field = format!("transition{number}");
                let theirs = format!("features.{field}");
                list.norm(
                    &format!("{field}.norm"),
                    &format!("{theirs}.norm"),
                    transition.norm,
                );
                list.conv(
                    &format!("{field}.conv"),
                    &format!("{theirs}.conv"),
                    transition.conv,
                );
            }
        }
        // torchvision calls it the fifth; we do so for any number of blocks.
        list.norm("norm", "features.norm5", head.norm);
        let shape = [self.classes(), self.features()];
        let name = || "classifier.weight".to_string();
        list.push(name(), name(), Role::LinearWeight, (head.weight, &shape));
        let name = || "classifier.bias".to_string();
        list.push(name(), name(), Role::LinearBias, (head.bias, &shape[..1]));
        list.0
    }

    /// Number of running statistics: a mean and a variance for each channel of each BN.
    pub fn running_count(&self) -> usize {
        self.norm_channels() * 2
    }

    /// Channels of all BN layers together.
    pub(crate) fn norm_channels(&self) -> usize {
        let stem = match self.stem().kind {
            StemKind::ImageNet => self.stem().maps,
            StemKind::Cifar => 0,
        };
        let layers: usize = self
            .blocks()
            .iter()
            .flat_map(Block::iter)
            .map(|layer| layer.input + layer.bottleneck.unwrap_or(0))
            .sum();
        let transitions: usize = self.transitions().iter().map(|t| t.input).sum();
        stem + layers + transitions + self.features()
    }
}
