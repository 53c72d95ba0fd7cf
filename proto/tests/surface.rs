//! The wire's surface: what our `.proto` texts compile to, compared with a table that was written
//! from the description of the API and not from those texts.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

const TABLE: &str = include_str!("surface.txt");
/// The packages of the etcd API; the peer protocol is ours to change.
const PACKAGES: [&str; 5] = [
    "authpb",
    "etcdserverpb",
    "mvccpb",
    "v3electionpb",
    "v3lockpb",
];

#[test]
fn every_rpc_field_and_value_is_as_the_api_has_it() {
    let wanted: BTreeSet<String> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let compiled = surface(&descriptors());

    let missing: Vec<_> = wanted.difference(&compiled).collect();
    let surplus: Vec<_> = compiled.difference(&wanted).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "the API has, we have not: {missing:#?}\nwe have, the API has not: {surplus:#?}"
    );
}

#[test]
fn there_are_49_rpcs() {
    let surface = surface(&descriptors());
    assert_eq!(
        surface
            .iter()
            .filter(|line| line.starts_with("rpc "))
            .count(),
        49
    );
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(gonfalon_proto::DESCRIPTORS).expect("build.rs wrote a descriptor set")
}

/// The lines of `surface.txt` for what was compiled.
fn surface(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in set
        .file
        .iter()
        .filter(|file| PACKAGES.contains(&file.package()))
    {
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        for service in &file.service {
            describe_service(service, file.package(), &mut lines);
        }
        for message in &file.message_type {
            describe_message(message, file.package(), &mut lines);
        }
        for values in &file.enum_type {
            describe_enum(values, file.package(), &mut lines);
        }
    }
    lines
}

fn describe_service(service: &ServiceDescriptorProto, scope: &str, lines: &mut BTreeSet<String>) {
    for method in &service.method {
        let stream = |is_stream| if is_stream { "stream " } else { "" };
        lines.insert(format!(
            "rpc {scope}.{}/{} {}{} -> {}{}",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type().trim_start_matches('.'),
            stream(method.server_streaming()),
            method.output_type().trim_start_matches('.'),
        ));
    }
}

fn describe_message(message: &DescriptorProto, scope: &str, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let repeated = if field.label() == Label::Repeated {
            "repeated "
        } else {
            ""
        };
        let oneof = field.oneof_index.map_or_else(String::new, |index| {
            let index = usize::try_from(index).expect("an index is not negative");
            format!(" in {}", message.oneof_decl[index].name())
        });
        lines.insert(format!(
            "field {name} {} {repeated}{} {}{oneof}",
            field.number(),
            type_name(field),
            field.name(),
        ));
    }
    for values in &message.enum_type {
        describe_enum(values, &name, lines);
    }
    for nested in &message.nested_type {
        describe_message(nested, &name, lines);
    }
}

fn describe_enum(values: &EnumDescriptorProto, scope: &str, lines: &mut BTreeSet<String>) {
    for value in &values.value {
        let name = values.name();
        lines.insert(format!(
            "value {scope}.{name} {} {}",
            value.number(),
            value.name()
        ));
    }
}

fn type_name(field: &FieldDescriptorProto) -> &str {
    match field.r#type() {
        Type::Bool => "bool",
        Type::Bytes => "bytes",
        Type::Int64 => "int64",
        Type::String => "string",
        Type::Uint32 => "uint32",
        Type::Uint64 => "uint64",
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.'),
        other => panic!("the API has no field of type {other:?}: {}", field.name()),
    }
}
