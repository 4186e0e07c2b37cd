//! Finds the tensors of a network among a file's contents.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use super::TorchError;
use super::container::{self, Storages};
use super::pickle::{Graph, Id, Node};
use super::tensor::{ElementType, View};

/// Keys under which people keep a network, the likeliest first. Averages of a run's weights come
/// after the weights themselves.
const KEYS: [&str; 14] = [
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "swa",
    "average",
];
/// The largest depth of a network in a checkpoint, and of a tensor in its constructor's arguments.
const DEPTH: usize = 4;
/// The most elements of a list that are examined.
const MOST_ELEMENTS: usize = 16;
/// How deep a module may lie in modules.
const MODULE_DEPTH: usize = 64;
/// The limit on the cost of a search: the bytes of names, and [`ENTRY`] for each. Objects are
/// shared, so a short pickle may have any number of paths.
const MOST_WORK: usize = 1 << 25;
/// What an entry with a name costs.
const ENTRY: usize = 32;
/// The most dimensions of a tensor that are examined.
const MOST_DIMENSIONS: usize = 64;

/// Where the tensors of a PyTorch file were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The key in the checkpoint, such as `state_dict`, or several with `/` between them; `None` if
    /// the file holds nothing else.
    pub key: Option<String>,
    /// Whether it is a whole pickled module, and not a state dict.
    pub is_module: bool,
    /// Other keys that also hold a network and were skipped.
    pub others: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_module {
            "module"
        } else {
            "state dict"
        };
        match &self.key {
            Some(key) => write!(f, "the {what} under `{key}`")?,
            None => write!(f, "the {what} that the file is")?,
        }
        if !self.others.is_empty() {
            let others: Vec<_> = self.others.iter().map(|key| format!("`{key}`")).collect();
            write!(f, " (and not {})", others.join(", "))?;
        }
        Ok(())
    }
}

/// Something that may be the network.
struct Candidate {
    key: Option<String>,
    is_module: bool,
    tensors: Vec<(String, Id)>,
}

impl Candidate {
    /// The rank of its key among those that people use.
    fn rank(&self) -> usize {
        let last = self.key.as_deref().and_then(|key| key.rsplit('/').next());
        let known = |key| KEYS.iter().position(|&known| known == key);
        last.map_or(0, |key| 1 + known(key).unwrap_or(KEYS.len()))
    }
}

/// The tensors of the network in a file, by name. Among all dictionaries and modules with at least
/// half as many tensors as the largest, it is the one whose key comes first in [`KEYS`], or else
/// the largest.
pub(super) fn tensors(
    graph: &Graph,
    storages: &mut Storages<'_>,
    of_tar: &HashMap<String, View>,
) -> Result<(Vec<(String, View)>, Found), TorchError> {
    let mut search = Search {
        graph,
        candidates: Vec::new(),
        left: MOST_WORK,
    };
    search.collect(graph.root(), None, DEPTH)?;
    let mut candidates = search.candidates;
    let most = candidates.iter().map(|own| own.tensors.len()).max();
    let most = most.unwrap_or_default();
    candidates.retain(|own| 2 * own.tensors.len() >= most.max(1));
    candidates.sort_by_key(|own| (own.rank(), Reverse(own.tensors.len())));
    let mut candidates = candidates.into_iter();
    let Some(chosen) = candidates.next() else {
        return Err(TorchError::NoTensors(described(graph)));
    };
    let found = Found {
        key: chosen.key,
        is_module: chosen.is_module,
        others: candidates.filter_map(|own| own.key).collect(),
    };
    let mut views = Vec::with_capacity(chosen.tensors.len());
    for (name, id) in chosen.tensors {
        match view(graph, id, storages, of_tar) {
            Ok(own) => views.push((name, own)),
            Err(Flaw::Tensor(why)) => return Err(TorchError::BadTensor { name, why }),
            Err(Flaw::Container(error)) => return Err(error),
        }
    }
    Ok((views, found))
}

/// The contents of a file without tensors, in words.
fn described(graph: &Graph) -> String {
    let Some(entries) = graph.entries(graph.root()) else {
        return "it is not a dictionary or a module".to_string();
    };
    let keys = entries
        .iter()
        .filter_map(|&(key, _)| container::key(graph, key));
    let listed: Vec<_> = keys.take(8).collect();
    format!("its keys are {}", listed.join(", "))
}

/// Collects what may be the network.
struct Search<'a> {
    graph: &'a Graph,
    candidates: Vec<Candidate>,
    /// What is left of [`MOST_WORK`].
    left: usize,
}

impl Search<'_> {
    /// Counts a step of the search.
    fn spend(&mut self, cost: usize) -> Result<(), TorchError> {
        let left = self.left.checked_sub(cost);
        self.left = left.ok_or(TorchError::too_large("its objects have too many names"))?;
        Ok(())
    }

    /// The attributes of a module.
    fn module(&mut self, id: Id) -> Result<Option<Id>, TorchError> {
        let Node::Object(object) = self.graph.node(id) else {
            return Ok(None);
        };
        let Some(state) = object.state else {
            return Ok(None);
        };
        self.spend(self.graph.entries(state).map_or(0, <[_]>::len))?;
        Ok(self.graph.entry(state, "_modules").map(|_| state))
    }

    /// Examines an object and, to this depth, its contents.
    fn collect(&mut self, id: Id, key: Option<String>, depth: usize) -> Result<(), TorchError> {
        let graph = self.graph;
        if let Some(state) = self.module(id)? {
            let mut tensors = Vec::new();
            self.of_module(state, "", MODULE_DEPTH, &mut tensors)?;
            self.candidates.push(Candidate {
                key,
                is_module: true,
                tensors,
            });
            return Ok(());
        }
        let under = |name: &str| match &key {
            Some(key) => format!("{key}/{name}"),
            None => name.to_string(),
        };
        let mut inner = Vec::new();
        if let Some(entries) = graph.entries(id) {
            let mut tensors = TensorList::default();
            for &(name, value) in entries {
                let Some(name) = graph.text(name) else {
                    self.spend(1)?;
                    continue;
                };
                self.spend(ENTRY + name.len() + key.as_ref().map_or(0, String::len))?;
                if made(graph, value).is_some() {
                    tensors.set(name.to_string(), value);
                } else if depth > 0 {
                    inner.push((under(name), value));
                }
            }
            self.candidates.push(Candidate {
                key,
                is_module: false,
                tensors: tensors.list,
            });
        } else if let Some(elements) = graph.sequence(id) {
            let numbered = elements.iter().take(MOST_ELEMENTS).enumerate();
            inner.extend(numbered.map(|(index, &value)| (under(&index.to_string()), value)));
        }
        if depth > 0 {
            for (key, value) in inner {
                self.spend(1)?;
                self.collect(value, Some(key), depth - 1)?;
            }
        }
        Ok(())
    }

    /// The parameters and buffers of a module and of those in it, by their path.
    fn of_module(
        &mut self,
        state: Id,
        prefix: &str,
        depth: usize,
        tensors: &mut Vec<(String, Id)>,
    ) -> Result<(), TorchError> {
        let graph = self.graph;
        let entries = |kind| {
            let own = graph.entry(state, kind);
            own.and_then(|own| graph.entries(own)).unwrap_or_default()
        };
        let mut own = TensorList::default();
        for &(name, value) in entries("_parameters").iter().chain(entries("_buffers")) {
            let name = graph.text(name).unwrap_or_default();
            self.spend(ENTRY + prefix.len() + name.len())?;
            if made(graph, value).is_some() {
                own.set(format!("{prefix}{name}"), value);
            }
        }
        tensors.append(&mut own.list);
        for &(name, value) in entries("_modules") {
            let name = graph.text(name).unwrap_or_default();
            self.spend(ENTRY + prefix.len() + name.len())?;
            if depth > 0
                && let Some(state) = self.module(value)?
            {
                self.of_module(state, &format!("{prefix}{name}."), depth - 1, tensors)?;
            }
        }
        Ok(())
    }
}

/// The tensors of a dictionary.
#[derive(Default)]
struct TensorList {
    list: Vec<(String, Id)>,
    places: HashMap<String, usize>,
}

impl TensorList {
    /// Adds a tensor. A key that is set twice has its last value.
    fn set(&mut self, name: String, value: Id) {
        let place = self.places.get(&name);
        if let Some(own) = place.and_then(|&place| self.list.get_mut(place)) {
            own.1 = value;
        } else {
            self.places.insert(name.clone(), self.list.len());
            self.list.push((name, value));
        }
    }
}

/// A tensor, as the pickle has it.
enum Made<'a> {
    /// A view: a storage, an offset, a shape and strides; and the type of its elements, where the
    /// storage has none.
    View(&'a [Id], Option<Id>),
    /// One of a tar's, by its key.
    InTar(String),
    /// A tensor of another kind: sparse, quantised, or on no device.
    Other,
}

/// Why a tensor cannot be used.
enum Flaw {
    Tensor(&'static str),
    Container(TorchError),
}

impl From<&'static str> for Flaw {
    fn from(why: &'static str) -> Self {
        Self::Tensor(why)
    }
}

impl From<TorchError> for Flaw {
    fn from(error: TorchError) -> Self {
        Self::Container(error)
    }
}

/// How a tensor is constructed; `None` if this is not a tensor.
fn made(graph: &Graph, id: Id) -> Option<Made<'_>> {
    match graph.node(id) {
        Node::Persistent(name) => container::key(graph, *name).map(Made::InTar),
        Node::Object(object) => {
            let callable = graph.global(object.callable)?;
            made_by(graph, callable, graph.sequence(object.arguments)?, 0)
        }
        _ => None,
    }
}

fn made_by<'a>(
    graph: &'a Graph,
    callable: &str,
    arguments: &'a [Id],
    depth: usize,
) -> Option<Made<'a>> {
    let inner = |id: Id| match graph.node(id) {
        Node::Object(object) if depth < DEPTH => {
            let callable = graph.global(object.callable)?;
            made_by(
                graph,
                callable,
                graph.sequence(object.arguments)?,
                depth + 1,
            )
        }
        Node::Persistent(name) => container::key(graph, *name).map(Made::InTar),
        _ => None,
    };
    match callable {
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
            Some(Made::View(arguments, None))
        }
        "torch._utils._rebuild_tensor_v3" => Some(Made::View(arguments, arguments.get(6).copied())),
        "torch._utils._rebuild_parameter"
        | "torch._utils._rebuild_parameter_with_state"
        | "torch.nn.parameter.Parameter"
        | "torch.nn.parameter.Buffer"
        | "torch.autograd.variable.Variable" => inner(*arguments.first()?),
        // A subclass of tensors: how it is made, its class, and with which arguments.
        "torch._tensor._rebuild_from_type_v2" | "torch.tensor._rebuild_from_type_v2"
            if depth < DEPTH =>
        {
            let callable = graph.global(*arguments.first()?)?;
            made_by(
                graph,
                callable,
                graph.sequence(*arguments.get(2)?)?,
                depth + 1,
            )
        }
        "copyreg.__newobj__" | "copy_reg.__newobj__" if depth < DEPTH => {
            let (class, arguments) = arguments.split_first()?;
            made_by(graph, graph.global(*class)?, arguments, depth + 1)
        }
        other if other.starts_with("torch._utils._rebuild_") => Some(Made::Other),
        _ => None,
    }
}

/// Where a tensor's elements lie.
fn view(
    graph: &Graph,
    id: Id,
    storages: &mut Storages<'_>,
    of_tar: &HashMap<String, View>,
) -> Result<View, Flaw> {
    let view = match made(graph, id) {
        Some(Made::View(arguments, element)) => {
            let &[storage, offset, shape, strides, ..] = arguments else {
                return Err("it is made from too few values; the file is damaged".into());
            };
            storage_view(graph, storage, element, (offset, shape, strides), storages)?
        }
        Some(Made::InTar(key)) => of_tar
            .get(&key)
            .cloned()
            .ok_or("the file lacks its numbers; it is damaged")?,
        Some(Made::Other) | None => {
            return Err("it is sparse or quantised; save it by to_dense() or dequantize()".into());
        }
    };
    view.check(storages.bytes(view.storage))?;
    Ok(view)
}

const NO_NAME: &str = "its storage has no name; the file is damaged";
const NO_OFFSET: &str = "its offset is malformed; the file is damaged";

fn storage_view(
    graph: &Graph,
    storage: Id,
    element: Option<Id>,
    (offset, shape, strides): (Id, Id, Id),
    storages: &mut Storages<'_>,
) -> Result<View, Flaw> {
    let Node::Persistent(name) = graph.node(storage) else {
        return Err("it has no storage; the file is damaged".into());
    };
    // "storage", its class, its key, its device, its length; in old files the key, offset and
    // length of a part of it.
    let Some(&[_, class, key, _, _, ref part @ ..]) = graph.sequence(*name) else {
        return Err(NO_NAME.into());
    };
    let class = graph.global(element.unwrap_or(class)).unwrap_or_default();
    let element = ElementType::of(class);
    let key = container::key(graph, key).ok_or(NO_NAME)?;
    let place = storages
        .place(&key)?
        .ok_or("the file lacks its numbers; it is damaged")?;
    let start = match part.first().and_then(|&part| graph.sequence(part)) {
        Some(&[_, start, ..]) => natural(graph, start).ok_or(NO_OFFSET)?,
        _ => 0,
    };
    let offset = natural(graph, offset).ok_or(NO_OFFSET)?;
    Ok(View {
        element,
        storage: place,
        offset: start.checked_add(offset).ok_or(NO_OFFSET)?,
        shape: naturals(graph, shape).ok_or("its shape is malformed; the file is damaged")?,
        strides: naturals(graph, strides)
            .ok_or("its strides are malformed; the file is damaged")?,
    })
}

fn natural(graph: &Graph, id: Id) -> Option<usize> {
    usize::try_from(graph.integer(id)?).ok()
}

/// A shape: a tuple, or a `torch.Size` of one.
fn naturals(graph: &Graph, id: Id) -> Option<Vec<usize>> {
    let elements = match graph.node(id) {
        Node::Object(object) => graph.sequence(*graph.sequence(object.arguments)?.first()?)?,
        _ => graph.sequence(id)?,
    };
    if elements.len() > MOST_DIMENSIONS {
        return None;
    }
    elements.iter().map(|&own| natural(graph, own)).collect()
}
