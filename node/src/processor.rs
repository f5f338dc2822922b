//! The node's processor as labels of its Node object, under the names that KubeVirt's node labeller takes from libvirt.

use std::collections::BTreeMap;

use node_protocol::names;

/// A label's value has at most so many characters.
const LABEL_LENGTH: usize = 63;

/// What is known of the node's processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Processor {
    vendor: Option<&'static str>,
    name: Option<&'static str>,
    model: Option<String>,
    features: Vec<String>,
}

impl Processor {
    /// Reads the text of /proc/cpuinfo.
    #[must_use]
    pub(crate) fn parse(cpuinfo: &str) -> Self {
        let first = cpuinfo.split("\n\n").next().unwrap_or_default();
        let field = |wanted: &str| {
            let mut lines = first.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim())
        };
        let vendor = match field("vendor_id") {
            Some("GenuineIntel") => Some("Intel"),
            Some("AuthenticAMD") => Some("AMD"),
            _ => None,
        };
        let number = |name| field(name).and_then(|text| text.parse::<u32>().ok());
        let signature = [number("cpu family"), number("model"), number("stepping")].map(Option::unwrap_or_default);
        let name = vendor.and_then(|vendor| host_model(vendor, signature));
        let features = field("flags").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        Self { vendor, name, model: field("model name").and_then(label_value), features }
    }

    /// The labels that say it.
    #[must_use]
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let yes = |name: String| (name, "true".to_owned());
        let vendor = self.vendor.map(|vendor| yes(format!("{}{vendor}", names::CPU_VENDOR_PREFIX)));
        let model = self.model.clone().map(|model| (names::CPU_MODEL.to_owned(), model));
        let features = self.features.iter().map(|name| yes(format!("{}{}", names::CPU_FEATURE_PREFIX, feature(name))));
        let prefixes = [names::CPU_MODEL_PREFIX, names::HOST_MODEL_PREFIX];
        let name = self.name.into_iter().flat_map(|name| prefixes.map(|prefix| yes(format!("{prefix}{name}"))));
        features.chain(vendor).chain(model).chain(name).collect()
    }
}

/// Features that libvirt, and with it KubeVirt's labels and manifests, spell otherwise than Linux: Linux' name, libvirt's
/// (its cpu_map/x86_features.xml). All others have one name.
const SPELLINGS: [(&str, &str); 21] = [
    ("amx_bf16", "amx-bf16"),
    ("amx_int8", "amx-int8"),
    ("amx_tile", "amx-tile"),
    ("arch_capabilities", "arch-capabilities"),
    ("avx512_4fmaps", "avx512-4fmaps"),
    ("avx512_4vnniw", "avx512-4vnniw"),
    ("avx512_bf16", "avx512-bf16"),
    ("avx512_bitalg", "avx512bitalg"),
    ("avx512_fp16", "avx512-fp16"),
    ("avx512_vbmi2", "avx512vbmi2"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512_vpopcntdq", "avx512-vpopcntdq"),
    ("avx_vnni", "avx-vnni"),
    ("cr8_legacy", "cr8legacy"),
    ("intel_pt", "intel-pt"),
    ("md_clear", "md-clear"),
    ("pclmulqdq", "pclmuldq"),
    ("sha_ni", "sha-ni"),
    ("sse4_1", "sse4.1"),
    ("sse4_2", "sse4.2"),
    ("tsc_deadline_timer", "tsc-deadline"),
];

/// A feature of /proc/cpuinfo under the name that KubeVirt's labels have.
fn feature(name: &str) -> &str {
    SPELLINGS.iter().find(|(linux, _)| *linux == name).map_or(name, |(_, libvirt)| libvirt)
}

/// A processor model of libvirt: vendor, family, models, the steppings that have the name.
type Signature = (&'static str, u32, &'static [u32], std::ops::RangeInclusive<u32>, &'static str);

const ANY: std::ops::RangeInclusive<u32> = 0..=u32::MAX;

/// libvirt's models by signature (its cpu_map/x86_*.xml), without the variants that differ in mitigations or TSX.
const MODELS: [Signature; 23] = [
    ("Intel", 6, &[15, 22], ANY, "Conroe"),
    ("Intel", 6, &[23, 29], ANY, "Penryn"),
    ("Intel", 6, &[26, 30, 31, 46], ANY, "Nehalem"),
    ("Intel", 6, &[37, 44, 47], ANY, "Westmere"),
    ("Intel", 6, &[42, 45], ANY, "SandyBridge"),
    ("Intel", 6, &[58, 62], ANY, "IvyBridge"),
    ("Intel", 6, &[60, 63, 69, 70], ANY, "Haswell"),
    ("Intel", 6, &[61, 71, 79, 86], ANY, "Broadwell"),
    ("Intel", 6, &[78, 94, 142, 158, 165, 166], ANY, "Skylake-Client"),
    ("Intel", 6, &[85], 0..=4, "Skylake-Server"),
    ("Intel", 6, &[85], 5..=7, "Cascadelake-Server"),
    ("Intel", 6, &[85], 10..=11, "Cooperlake"),
    ("Intel", 6, &[106, 108], ANY, "Icelake-Server"),
    ("Intel", 6, &[143], ANY, "SapphireRapids"),
    ("Intel", 6, &[173], ANY, "GraniteRapids"),
    ("AMD", 16, &[2, 4, 5, 6, 8, 9, 10], ANY, "Opteron_G3"),
    ("AMD", 21, &[1], ANY, "Opteron_G4"),
    ("AMD", 21, &[2], ANY, "Opteron_G5"),
    ("AMD", 23, &[1], ANY, "EPYC"),
    ("AMD", 23, &[49], ANY, "EPYC-Rome"),
    ("AMD", 25, &[1], ANY, "EPYC-Milan"),
    ("AMD", 25, &[17], ANY, "EPYC-Genoa"),
    ("AMD", 26, &[2], ANY, "EPYC-Turin"),
];

/// The name of the model with a signature of family, model and stepping.
fn host_model(vendor: &str, [family, model, stepping]: [u32; 3]) -> Option<&'static str> {
    let is_it = |(of, in_family, models, steppings, _): &&Signature| {
        *of == vendor && *in_family == family && models.contains(&model) && steppings.contains(&stepping)
    };
    MODELS.iter().find(is_it).map(|(.., name)| *name)
}

/// A text in the letters of a label's value (Kubernetes: labels and selectors, syntax).
fn label_value(text: &str) -> Option<String> {
    let letters = text.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' });
    let mut value = String::new();
    for letter in letters {
        if letter != '-' || !value.ends_with('-') {
            value.push(letter);
        }
    }
    let is_edge = |letter: char| !letter.is_ascii_alphanumeric();
    let value: String = value.trim_matches(is_edge).chars().take(LABEL_LENGTH).collect();
    let value = value.trim_matches(is_edge);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.80GHz\n\
        stepping\t: 7\nflags\t\t: fpu vmx sse4_2\n\nprocessor\t: 1\nflags\t\t: other\n";

    // spec: NODE-5
    #[test]
    fn vendor_model_and_features_become_labels() {
        let expected = [
            ("cpu-feature.node.kubevirt.io/fpu", "true"),
            ("cpu-feature.node.kubevirt.io/sse4.2", "true"),
            ("cpu-feature.node.kubevirt.io/vmx", "true"),
            ("cpu-model.node.kubevirt.io/Cascadelake-Server", "true"),
            ("cpu-vendor.node.kubevirt.io/Intel", "true"),
            ("host-model-cpu.node.kubevirt.io/Cascadelake-Server", "true"),
            ("node.tapvisor.io/cpu-model", "Intel-R-Xeon-R-CPU-2.80GHz"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(Processor::parse(CPUINFO).labels(), expected);
        assert!(Processor::parse("").labels().is_empty());
        assert_eq!(label_value(&"x".repeat(100)).unwrap().len(), LABEL_LENGTH);
        assert_eq!(label_value("()"), None);
    }

    // spec: NODE-5
    #[test]
    fn a_model_has_the_name_of_its_family_model_and_stepping() {
        assert_eq!(host_model("Intel", [6, 85, 4]), Some("Skylake-Server"));
        assert_eq!(host_model("Intel", [6, 85, 11]), Some("Cooperlake"));
        assert_eq!(host_model("AMD", [25, 17, 1]), Some("EPYC-Genoa"));
        assert_eq!((host_model("AMD", [6, 85, 4]), host_model("Intel", [6, 85, 9])), (None, None));
    }
}
