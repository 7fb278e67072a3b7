//! The built-in tables and columns, with types and lengths. Data only.
//!
//! Sources: recorded responses and the vendor's documentation of the out-of-the-box tables. Columns without a source
//! are left out. [`super::ExtraColumn`] adds custom columns.

/// The type of a column, as far as storage, comparison or display depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    Text,
    Integer,
    Boolean,
    /// A value of the list in `CHOICES`; other values are ignored.
    Choice,
    /// The sys_id of a row of that table. Any text of at most 32 characters is stored.
    Reference(&'static str),
    DateTime,
    Duration,
    /// Each write appends an entry; the column reads back blank.
    Journal,
    /// The name of the row's own table.
    Class,
}

/// Computed defaults of unset columns; a leading `@` marks them.
pub(super) const CREATED: &str = "@created";
pub(super) const CREATOR: &str = "@creator";
pub(super) const NUMBER: &str = "@number";
pub(super) const SYS_ID: &str = "@sys_id";

/// Name, label, type, length (0 is unlimited), default.
type ColumnDefinition = (&'static str, &'static str, ColumnType, u32, &'static str);

/// A built-in table.
pub(super) struct TableDefinition {
    pub name: &'static str,
    pub label: &'static str,
    pub parent: Option<&'static str>,
    /// Prefix of the numbers; empty if the table has none.
    pub prefix: &'static str,
    /// The display column.
    pub display: &'static str,
    /// Own columns, without inherited ones.
    pub columns: &'static [ColumnDefinition],
    /// Defaults of inherited columns that differ from the parent's.
    pub defaults: &'static [(&'static str, &'static str)],
}

use ColumnType::{Boolean, Choice, Class, DateTime, Duration, Integer, Journal, Reference, Text};

const USER: ColumnType = Reference("sys_user");
const GROUP: ColumnType = Reference("sys_user_group");
const CI: ColumnType = Reference("cmdb_ci");

/// The columns of every table. Storage relies on the order of the first seven.
pub(super) const SYSTEM: &[ColumnDefinition] = &[
    ("sys_id", "Sys ID", Text, 32, SYS_ID),
    ("sys_created_on", "Created", DateTime, 40, ""),
    ("sys_created_by", "Created by", Text, 40, ""),
    ("sys_updated_on", "Updated", DateTime, 40, ""),
    ("sys_updated_by", "Updated by", Text, 40, ""),
    ("sys_mod_count", "Updates", Integer, 40, "0"),
    ("sys_class_name", "Class", Class, 80, ""),
    ("sys_tags", "Tags", Text, 255, ""),
];

const TASK: &[ColumnDefinition] = &[
    ("number", "Number", Text, 40, NUMBER),
    ("state", "State", Choice, 40, "1"),
    ("active", "Active", Boolean, 40, "true"),
    ("short_description", "Short description", Text, 160, ""),
    ("description", "Description", Text, 0, ""),
    ("impact", "Impact", Choice, 40, "3"),
    ("urgency", "Urgency", Choice, 40, "3"),
    ("priority", "Priority", Choice, 40, "4"),
    ("assigned_to", "Assigned to", USER, 32, ""),
    ("assignment_group", "Assignment group", GROUP, 32, ""),
    ("opened_at", "Opened", DateTime, 40, CREATED),
    ("opened_by", "Opened by", USER, 32, CREATOR),
    ("closed_at", "Closed", DateTime, 40, ""),
    ("closed_by", "Closed by", USER, 32, ""),
    ("close_notes", "Close notes", Text, 0, ""),
    ("work_notes", "Work notes", Journal, 0, ""),
    ("comments", "Additional comments", Journal, 0, ""),
    ("comments_and_work_notes", "Comments and Work notes", Journal, 0, ""),
    ("correlation_id", "Correlation ID", Text, 100, ""),
    ("correlation_display", "Correlation display", Text, 100, ""),
    ("contact_type", "Contact type", Choice, 40, ""),
    ("cmdb_ci", "Configuration item", CI, 32, ""),
    ("business_service", "Service", CI, 32, ""),
    ("service_offering", "Service offering", CI, 32, ""),
    ("location", "Location", Reference("cmn_location"), 32, ""),
    ("company", "Company", Reference("core_company"), 32, ""),
    ("parent", "Parent", Reference("task"), 32, ""),
    ("approval", "Approval", Text, 40, "not requested"),
    ("approval_history", "Approval history", Journal, 0, ""),
    ("approval_set", "Approval set", DateTime, 40, ""),
    ("upon_approval", "Upon approval", Text, 40, "proceed"),
    ("upon_reject", "Upon reject", Text, 40, "cancel"),
    ("escalation", "Escalation", Integer, 40, "0"),
    ("knowledge", "Knowledge", Boolean, 40, "false"),
    ("made_sla", "Made SLA", Boolean, 40, "true"),
    ("reassignment_count", "Reassignment count", Integer, 40, "0"),
    ("due_date", "Due date", DateTime, 40, ""),
    ("expected_start", "Expected start", DateTime, 40, ""),
    ("follow_up", "Follow up", DateTime, 40, ""),
    ("sla_due", "SLA due", DateTime, 40, ""),
    ("activity_due", "Activity due", DateTime, 40, ""),
    ("work_start", "Actual start", DateTime, 40, ""),
    ("work_end", "Actual end", DateTime, 40, ""),
    ("time_worked", "Time worked", Duration, 40, ""),
    ("business_duration", "Business duration", Duration, 40, ""),
    ("calendar_duration", "Duration", Duration, 40, ""),
    ("group_list", "Group list", Text, 0, ""),
    ("watch_list", "Watch list", Text, 0, ""),
    ("work_notes_list", "Work notes list", Text, 0, ""),
    ("additional_assignee_list", "Additional assignee list", Text, 0, ""),
    ("user_input", "User input", Text, 0, ""),
    ("order", "Order", Integer, 40, ""),
    ("route_reason", "Transfer reason", Integer, 40, ""),
    ("universal_request", "Universal Request", Reference("task"), 32, ""),
    ("task_effective_number", "Effective number", Text, 40, NUMBER),
    ("delivery_plan", "Delivery plan", Text, 32, ""),
    ("delivery_task", "Delivery task", Text, 32, ""),
    ("contract", "Contract", Text, 32, ""),
    ("sys_domain", "Domain", Reference("sys_user_group"), 32, "global"),
    ("sys_domain_path", "Domain Path", Text, 255, "/"),
];

const INCIDENT: &[ColumnDefinition] = &[
    ("caller_id", "Caller", USER, 32, ""),
    ("incident_state", "Incident state", Choice, 40, "1"),
    ("hold_reason", "On hold reason", Choice, 40, ""),
    ("category", "Category", Choice, 40, "inquiry"),
    ("subcategory", "Subcategory", Choice, 40, ""),
    ("severity", "Severity", Choice, 40, "3"),
    ("notify", "Notify", Integer, 40, "1"),
    ("close_code", "Resolution code", Choice, 40, ""),
    ("resolved_at", "Resolved", DateTime, 40, ""),
    ("resolved_by", "Resolved by", USER, 32, ""),
    ("reopen_count", "Reopen count", Integer, 40, "0"),
    ("reopened_by", "Last reopened by", USER, 32, ""),
    ("reopened_time", "Last reopened at", DateTime, 40, ""),
    ("problem_id", "Problem", Reference("problem"), 32, ""),
    ("rfc", "Change Request", Reference("change_request"), 32, ""),
    ("caused_by", "Caused by Change", Reference("change_request"), 32, ""),
    ("parent_incident", "Parent Incident", Reference("incident"), 32, ""),
    ("child_incidents", "Child Incidents", Integer, 40, "0"),
    ("business_impact", "Business impact", Text, 0, ""),
    ("cause", "Probable cause", Text, 0, ""),
    ("calendar_stc", "Resolve time", Integer, 40, ""),
    ("business_stc", "Business resolve time", Integer, 40, ""),
    ("origin_table", "Origin table", Text, 80, ""),
    ("origin_id", "Origin", Text, 32, ""),
];

const PROBLEM: &[ColumnDefinition] = &[
    ("problem_state", "Problem state", Choice, 40, "101"),
    ("resolution_code", "Resolution code", Choice, 40, ""),
    ("cause_notes", "Cause notes", Text, 0, ""),
    ("fix_notes", "Fix notes", Text, 0, ""),
    ("workaround", "Workaround", Text, 0, ""),
    ("known_error", "Known error", Boolean, 40, "false"),
    ("duplicate_of", "Duplicate of", Reference("problem"), 32, ""),
    ("first_reported_by_task", "First reported by", Reference("task"), 32, ""),
];

const CHANGE: &[ColumnDefinition] = &[
    ("type", "Type", Choice, 40, "normal"),
    ("risk", "Risk", Choice, 40, "3"),
    ("start_date", "Planned start date", DateTime, 40, ""),
    ("end_date", "Planned end date", DateTime, 40, ""),
    ("on_hold", "On hold", Boolean, 40, "false"),
    ("on_hold_reason", "On hold reason", Text, 0, ""),
    ("cab_required", "CAB required", Boolean, 40, "false"),
    ("requested_by", "Requested by", USER, 32, CREATOR),
    ("justification", "Justification", Text, 0, ""),
    ("close_code", "Close code", Choice, 40, ""),
];

const CMDB_CI: &[ColumnDefinition] = &[
    ("name", "Name", Text, 255, ""),
    ("short_description", "Description", Text, 0, ""),
    ("operational_status", "Operational status", Choice, 40, "1"),
    ("install_status", "Status", Choice, 40, "1"),
    ("discovery_source", "Discovery source", Text, 40, ""),
    ("correlation_id", "Correlation ID", Text, 100, ""),
    ("support_group", "Support group", GROUP, 32, ""),
    ("assignment_group", "Change Group", GROUP, 32, ""),
    ("owned_by", "Owned by", USER, 32, ""),
    ("fqdn", "Fully qualified domain name", Text, 255, ""),
    ("ip_address", "IP Address", Text, 255, ""),
    ("serial_number", "Serial number", Text, 255, ""),
];

const USERS: &[ColumnDefinition] = &[
    ("user_name", "User ID", Text, 40, ""),
    ("name", "Name", Text, 151, ""),
    ("first_name", "First name", Text, 50, ""),
    ("last_name", "Last name", Text, 50, ""),
    ("email", "Email", Text, 100, ""),
    ("active", "Active", Boolean, 40, "true"),
    ("locked_out", "Locked out", Boolean, 40, "false"),
    ("time_zone", "Time zone", Text, 40, ""),
    ("web_service_access_only", "Web service access only", Boolean, 40, "false"),
];

const GROUPS: &[ColumnDefinition] = &[
    ("name", "Name", Text, 80, ""),
    ("description", "Description", Text, 0, ""),
    ("active", "Active", Boolean, 40, "true"),
    ("manager", "Manager", USER, 32, ""),
    ("email", "Group email", Text, 100, ""),
    ("type", "Type", Text, 0, ""),
];

const EM_EVENT: &[ColumnDefinition] = &[
    ("source", "Source", Text, 100, ""),
    ("event_class", "Source instance", Text, 100, ""),
    ("node", "Node", Text, 100, ""),
    ("resource", "Resource", Text, 100, ""),
    ("metric_name", "Metric name", Text, 100, ""),
    ("type", "Type", Text, 100, ""),
    ("message_key", "Message key", Text, 0, ""),
    ("severity", "Severity", Choice, 40, ""),
    ("resolution_state", "Resolution state", Text, 40, "New"),
    ("time_of_event", "Time of event", DateTime, 40, ""),
    ("description", "Description", Text, 0, ""),
    ("additional_info", "Additional information", Text, 0, ""),
    ("state", "State", Text, 40, "Ready"),
    ("alert", "Alert", Text, 32, ""),
    ("processing_notes", "Processing notes", Text, 0, ""),
];

const EM_ALERT: &[ColumnDefinition] = &[
    ("message_key", "Message key", Text, 0, ""),
    ("source", "Source", Text, 100, ""),
    ("node", "Node", Text, 100, ""),
    ("resource", "Resource", Text, 100, ""),
    ("type", "Type", Text, 100, ""),
    ("metric_name", "Metric name", Text, 100, ""),
    ("severity", "Severity", Text, 40, ""),
    ("state", "State", Text, 40, "Open"),
    ("description", "Description", Text, 0, ""),
    ("additional_info", "Additional information", Text, 0, ""),
    ("last_event_time", "Last event", DateTime, 40, ""),
];

/// A staging table as an administrator would create it for the default columns.
const STAGING: &[ColumnDefinition] = &[
    ("u_sys_id", "Ticket", Text, 32, ""),
    ("u_correlation_id", "Correlation ID", Text, 100, ""),
    ("u_correlation_display", "Correlation display", Text, 100, ""),
    ("u_short_description", "Short description", Text, 160, ""),
    ("u_description", "Description", Text, 4000, ""),
    ("u_impact", "Impact", Text, 40, ""),
    ("u_urgency", "Urgency", Text, 40, ""),
    ("u_state", "State", Text, 40, ""),
    ("u_close_code", "Resolution code", Text, 40, ""),
    ("u_close_notes", "Resolution notes", Text, 4000, ""),
    ("u_work_notes", "Work notes", Text, 65_000, ""),
    ("u_category", "Category", Text, 40, ""),
    ("u_caller_id", "Caller", Text, 40, ""),
    ("u_assignment_group", "Assignment group", Text, 40, ""),
    ("u_cmdb_ci", "Configuration item", Text, 40, ""),
];

const JOURNAL_FIELD: &[ColumnDefinition] = &[
    ("name", "Name", Text, 80, ""),
    ("element", "Element", Text, 80, ""),
    ("element_id", "Element ID", Text, 32, ""),
    ("value", "Value", Text, 0, ""),
];

const AUDIT_DELETE: &[ColumnDefinition] = &[
    ("tablename", "Table name", Text, 80, ""),
    ("documentkey", "Document key", Text, 32, ""),
    ("display_value", "Display value", Text, 255, ""),
    ("payload", "Payload", Text, 0, ""),
    ("user", "User", Text, 40, ""),
];

const CHOICE_TABLE: &[ColumnDefinition] = &[
    ("name", "Table", Text, 80, ""),
    ("element", "Element", Text, 80, ""),
    ("value", "Value", Text, 100, ""),
    ("label", "Label", Text, 255, ""),
    ("sequence", "Sequence", Integer, 40, ""),
    ("dependent_value", "Dependent value", Text, 100, ""),
    ("hint", "Hint", Text, 255, ""),
    ("inactive", "Inactive", Boolean, 40, "false"),
    ("language", "Language", Text, 40, "en"),
];

const PROPERTIES: &[ColumnDefinition] =
    &[("name", "Name", Text, 100, ""), ("value", "Value", Text, 0, ""), ("description", "Description", Text, 0, "")];

const DB_OBJECT: &[ColumnDefinition] = &[
    ("name", "Name", Text, 80, ""),
    ("label", "Label", Text, 80, ""),
    ("super_class", "Extends table", Reference("sys_db_object"), 32, ""),
];

const DICTIONARY: &[ColumnDefinition] = &[
    ("name", "Table", Text, 80, ""),
    ("element", "Column name", Text, 80, ""),
    ("column_label", "Column label", Text, 80, ""),
    ("internal_type", "Type", Text, 40, ""),
    ("max_length", "Max length", Integer, 40, ""),
    ("reference", "Reference", Text, 80, ""),
    ("mandatory", "Mandatory", Boolean, 40, "false"),
    ("read_only", "Read only", Boolean, 40, "false"),
    ("default_value", "Default value", Text, 255, ""),
];

const fn base_table(
    name: &'static str,
    label: &'static str,
    display: &'static str,
    columns: &'static [ColumnDefinition],
) -> TableDefinition {
    TableDefinition { name, label, parent: None, prefix: "", display, columns, defaults: &[] }
}

/// All tables, parents first.
pub(super) const TABLES: &[TableDefinition] = &[
    TableDefinition { prefix: "TASK", ..base_table("task", "Task", "number", TASK) },
    TableDefinition {
        parent: Some("task"),
        prefix: "INC",
        defaults: &[("priority", "5")],
        ..base_table("incident", "Incident", "number", INCIDENT)
    },
    TableDefinition {
        parent: Some("task"),
        prefix: "PRB",
        defaults: &[("state", "101"), ("priority", "5")],
        ..base_table("problem", "Problem", "number", PROBLEM)
    },
    TableDefinition {
        parent: Some("task"),
        prefix: "CHG",
        defaults: &[("state", "-5")],
        ..base_table("change_request", "Change Request", "number", CHANGE)
    },
    base_table("cmdb_ci", "Configuration Item", "name", CMDB_CI),
    TableDefinition { parent: Some("cmdb_ci"), ..base_table("cmdb_ci_service", "Service", "name", &[]) },
    TableDefinition { parent: Some("cmdb_ci"), ..base_table("cmdb_ci_server", "Server", "name", &[]) },
    base_table("sys_user", "User", "name", USERS),
    base_table("sys_user_group", "Group", "name", GROUPS),
    base_table("em_event", "Event", "source", EM_EVENT),
    base_table("em_alert", "Alert", "message_key", EM_ALERT),
    base_table("u_nowbridge_incident", "nowbridge incidents", "u_correlation_id", STAGING),
    base_table("sys_journal_field", "Journal Entry", "sys_id", JOURNAL_FIELD),
    base_table("sys_audit_delete", "Audit Deleted Record", "display_value", AUDIT_DELETE),
    base_table("sys_choice", "Choice", "label", CHOICE_TABLE),
    base_table("sys_properties", "System Property", "name", PROPERTIES),
    base_table("sys_db_object", "Table", "label", DB_OBJECT),
    base_table("sys_dictionary", "Dictionary Entry", "column_label", DICTIONARY),
];
