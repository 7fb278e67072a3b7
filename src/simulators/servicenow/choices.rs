//! The choice lists of the built-in columns: values and labels of an English instance out of the box. Data only.

use super::faults::CloseCodes;

type ChoiceList = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const HIGH_MEDIUM_LOW: &[(&str, &str)] = &[("1", "1 - High"), ("2", "2 - Medium"), ("3", "3 - Low")];
const INCIDENT_STATES: &[(&str, &str)] =
    &[("1", "New"), ("2", "In Progress"), ("3", "On Hold"), ("6", "Resolved"), ("7", "Closed"), ("8", "Canceled")];
const PROBLEM_STATES: &[(&str, &str)] = &[
    ("101", "New"),
    ("102", "Assess"),
    ("103", "Root Cause Analysis"),
    ("104", "Fix in Progress"),
    ("106", "Resolved"),
    ("107", "Closed"),
];

/// Choices by table and column, except `incident.close_code`. A child table's list replaces its parent's.
pub(super) const CHOICES: &[ChoiceList] = &[
    (
        "task",
        "state",
        &[
            ("-5", "Pending"),
            ("1", "Open"),
            ("2", "Work in Progress"),
            ("3", "Closed Complete"),
            ("4", "Closed Incomplete"),
            ("7", "Closed Skipped"),
        ],
    ),
    ("task", "impact", HIGH_MEDIUM_LOW),
    ("task", "urgency", HIGH_MEDIUM_LOW),
    (
        "task",
        "priority",
        &[("1", "1 - Critical"), ("2", "2 - High"), ("3", "3 - Moderate"), ("4", "4 - Low"), ("5", "5 - Planning")],
    ),
    (
        "task",
        "contact_type",
        &[
            ("chat", "Chat"),
            ("email", "Email"),
            ("phone", "Phone"),
            ("self-service", "Self-service"),
            ("virtual_agent", "Virtual Agent"),
            ("walk-in", "Walk-in"),
        ],
    ),
    ("incident", "state", INCIDENT_STATES),
    ("incident", "incident_state", INCIDENT_STATES),
    (
        "incident",
        "hold_reason",
        &[("1", "Awaiting Caller"), ("3", "Awaiting Problem"), ("4", "Awaiting Vendor"), ("5", "Awaiting Change")],
    ),
    ("incident", "severity", HIGH_MEDIUM_LOW),
    (
        "incident",
        "category",
        &[
            ("inquiry", "Inquiry / Help"),
            ("software", "Software"),
            ("hardware", "Hardware"),
            ("network", "Network"),
            ("database", "Database"),
        ],
    ),
    (
        "incident",
        "subcategory",
        &[
            ("antivirus", "Antivirus"),
            ("email", "Email"),
            ("internal application", "Internal Application"),
            ("os", "Operating System"),
            ("cpu", "CPU"),
            ("disk", "Disk"),
            ("keyboard", "Keyboard"),
            ("memory", "Memory"),
            ("monitor", "Monitor"),
            ("mouse", "Mouse"),
            ("dhcp", "DHCP"),
            ("dns", "DNS"),
            ("ip address", "IP Address"),
            ("vpn", "VPN"),
            ("wireless", "Wireless"),
            ("db2", "DB2"),
            ("sql server", "MS SQL Server"),
            ("oracle", "Oracle"),
        ],
    ),
    ("problem", "state", PROBLEM_STATES),
    ("problem", "problem_state", PROBLEM_STATES),
    (
        "problem",
        "resolution_code",
        &[
            ("fix_applied", "Fix Applied"),
            ("risk_accepted", "Risk Accepted"),
            ("duplicate", "Duplicate"),
            ("canceled", "Canceled"),
        ],
    ),
    (
        "change_request",
        "state",
        &[
            ("-5", "New"),
            ("-4", "Assess"),
            ("-3", "Authorize"),
            ("-2", "Scheduled"),
            ("-1", "Implement"),
            ("0", "Review"),
            ("3", "Closed"),
            ("4", "Canceled"),
        ],
    ),
    ("change_request", "type", &[("normal", "Normal"), ("standard", "Standard"), ("emergency", "Emergency")]),
    ("change_request", "risk", &[("1", "Very High"), ("2", "High"), ("3", "Moderate"), ("4", "Low")]),
    (
        "change_request",
        "close_code",
        &[
            ("successful", "Successful"),
            ("successful_issues", "Successful with issues"),
            ("unsuccessful", "Unsuccessful"),
        ],
    ),
    (
        "cmdb_ci",
        "operational_status",
        &[
            ("1", "Operational"),
            ("2", "Non-Operational"),
            ("3", "Repair in Progress"),
            ("4", "DR Standby"),
            ("5", "Ready"),
            ("6", "Retired"),
        ],
    ),
    ("cmdb_ci", "install_status", &[("1", "Installed"), ("7", "Retired")]),
    (
        "em_event",
        "severity",
        &[("0", "Clear"), ("1", "Critical"), ("2", "Major"), ("3", "Minor"), ("4", "Warning"), ("5", "OK")],
    ),
];

const NEW_CODES: &[&str] = &[
    "Duplicate",
    "Known error",
    "No resolution provided",
    "Resolved by caller",
    "Resolved by change",
    "Resolved by problem",
    "Resolved by request",
    "Solution provided",
    "Workaround provided",
    "User error",
];
const OLD_CODES: &[&str] = &[
    "Solved (Work Around)",
    "Solved (Permanently)",
    "Solved Remotely (Work Around)",
    "Solved Remotely (Permanently)",
    "Not Solved (Not Reproducible)",
    "Not Solved (Too Costly)",
    "Closed/Resolved by Caller",
];

/// The values of `incident.close_code`; each is its own label.
pub(super) fn close_codes(set: CloseCodes) -> Vec<&'static str> {
    match set {
        CloseCodes::New => NEW_CODES.to_vec(),
        CloseCodes::Old => OLD_CODES.to_vec(),
        CloseCodes::Both => NEW_CODES.iter().chain(OLD_CODES).copied().collect(),
    }
}
