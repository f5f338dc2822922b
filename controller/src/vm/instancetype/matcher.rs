//! `spec.instancetype` and `spec.preference` of a machine: which object is named.

use serde_json::Value;

use super::super::object::VirtualMachine;

/// What a machine names an object for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Instancetype,
    Preference,
}

/// The object that a machine names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matcher {
    pub(super) role: Role,
    pub(super) name: String,
    /// Whether the object belongs to no namespace.
    pub(super) is_cluster: bool,
    /// A ControllerRevision with the object as it was, named by the user.
    pub(super) revision: Option<String>,
}

impl Role {
    /// The field of a machine's spec.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Instancetype => "instancetype",
            Self::Preference => "preference",
        }
    }

    /// The field of a machine's status that says which revision is used.
    pub(super) fn status_field(self) -> &'static str {
        match self {
            Self::Instancetype => "instancetypeRef",
            Self::Preference => "preferenceRef",
        }
    }
}

impl Matcher {
    /// Reads what a machine names.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub(super) fn read(vm: &VirtualMachine, role: Role) -> Result<Option<Self>, String> {
        let field = role.field();
        let Some(given) = vm.spec.fields.get(field).filter(|given| !given.is_null()) else { return Ok(None) };
        let text = |name: &str| given[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(volume) = text("inferFromVolume") {
            return Err(format!("spec.{field}.inferFromVolume: {volume:?} is not supported: give kind and name"));
        }
        let Some(name) = text("name") else { return Err(format!("spec.{field}.name: is required")) };
        let kind = text("kind").unwrap_or_default();
        let own = format!("virtualmachine{field}");
        let is_cluster = match kind.to_lowercase().trim_end_matches('s') {
            "" => true,
            kind if kind == own => false,
            kind if kind == format!("virtualmachinecluster{field}") => true,
            _ => {
                return Err(format!(
                    "spec.{field}.kind: must be {} or {}, is {kind:?}",
                    kind_of(role, true),
                    kind_of(role, false)
                ));
            }
        };
        Ok(Some(Self { role, name, is_cluster, revision: text("revisionName") }))
    }

    /// Kind of the object.
    pub(super) fn kind(&self) -> &'static str {
        kind_of(self.role, self.is_cluster)
    }

    /// The annotation of an instance that says what its size or preference is.
    pub(super) fn annotation(&self) -> &'static str {
        match (self.role, self.is_cluster) {
            (Role::Instancetype, true) => "kubevirt.io/cluster-instancetype-name",
            (Role::Instancetype, false) => "kubevirt.io/instancetype-name",
            (Role::Preference, true) => "kubevirt.io/cluster-preference-name",
            (Role::Preference, false) => "kubevirt.io/preference-name",
        }
    }

    /// Whether the machine's status says which revision of this object it uses.
    pub(super) fn is_recorded(&self, vm: &VirtualMachine) -> bool {
        self.recorded(vm).is_some()
    }

    fn recorded<'a>(&self, vm: &'a VirtualMachine) -> Option<&'a str> {
        let status = vm.status.as_ref()?.other.get(self.role.status_field())?;
        let is_this = status["name"] == self.name.as_str() && same_kind(status, self.kind());
        status["controllerRevisionRef"]["name"].as_str().filter(|_| is_this)
    }

    /// The revision that the machine uses: the one that its user names, or the one of its first use under this name.
    pub(super) fn revision_in_use(&self, vm: &VirtualMachine) -> Option<String> {
        self.revision.clone().or_else(|| self.recorded(vm).map(str::to_owned))
    }
}

fn same_kind(status: &Value, kind: &str) -> bool {
    status["kind"].as_str().is_none_or(|found| found.is_empty() || found.eq_ignore_ascii_case(kind))
}

fn kind_of(role: Role, is_cluster: bool) -> &'static str {
    match (role, is_cluster) {
        (Role::Instancetype, true) => "VirtualMachineClusterInstancetype",
        (Role::Instancetype, false) => "VirtualMachineInstancetype",
        (Role::Preference, true) => "VirtualMachineClusterPreference",
        (Role::Preference, false) => "VirtualMachinePreference",
    }
}
