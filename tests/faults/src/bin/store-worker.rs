//! A process that works on the stores until it is killed: what the durability rows kill.

fn main() {}
