//! Just enough of ONNX's protobuf to write a hostile model: field numbers are those of onnx.proto3, IR version 7.

/// A chain of nodes from `input` (1×1×24×24) to `output` (1×2), the shapes of the eye model.
pub struct Graph {
    /// How many floats stand between the two.
    elements: i64,
}

impl Graph {
    /// A valid model that spreads its mean over so many floats and takes their mean again.
    pub fn swallowing(elements: i64) -> Self {
        Self { elements }
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let nodes = [
            node("ReduceMean", &["input"], "mean", true),
            node("Expand", &["mean", "many"], "spread", false),
            node("ReduceMean", &["spread"], "again", true),
            node("Expand", &["again", "two"], "output", false),
        ];
        let mut graph: Vec<u8> = nodes.iter().flat_map(|node| bytes(1, node)).collect();
        graph.extend(bytes(2, b"hostile"));
        graph.extend(bytes(5, &shape("many", &[self.elements])));
        graph.extend(bytes(5, &shape("two", &[1, 2])));
        graph.extend(bytes(11, &value("input", &[1, 1, 24, 24])));
        graph.extend(bytes(12, &value("output", &[1, 2])));
        [number(1, 7), bytes(7, &graph), bytes(8, &number(2, 9))].concat()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str, drops_dimensions: bool) -> Vec<u8> {
    let mut node: Vec<u8> = inputs.iter().flat_map(|input| bytes(1, input.as_bytes())).collect();
    node.extend(bytes(2, output.as_bytes()));
    node.extend(bytes(4, operator.as_bytes()));
    if drops_dimensions {
        // keepdims = 0, an attribute of type INT.
        node.extend(bytes(5, &[bytes(1, b"keepdims"), number(3, 0), number(20, 2)].concat()));
    }
    node
}

/// A constant tensor of INT64.
fn shape(name: &str, dimensions: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = dimensions.iter().flat_map(|value| varint(value.unsigned_abs())).collect();
    [number(1, dimensions.len() as u64), number(2, 7), bytes(7, &values), bytes(8, name.as_bytes())].concat()
}

/// A float tensor of fixed shape.
fn value(name: &str, dimensions: &[u64]) -> Vec<u8> {
    let shape: Vec<u8> = dimensions.iter().flat_map(|size| bytes(1, &number(1, *size))).collect();
    let tensor = [number(1, 1), bytes(2, &shape)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
