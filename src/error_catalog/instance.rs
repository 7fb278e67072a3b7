//! Errors of requests to an instance.

use super::ErrorPage;

pub(super) const PAGES: &[ErrorPage] = &[
    ErrorPage {
        number: 1,
        codes: &["connect", "http_client"],
        title: "no connection to the instance",
        message: "can't connect: … (DNS, connection refused, TLS)",
        cause: "No request left this machine, so nothing was written.",
        bridge_action: "Retries with increasing backoff, first with a single request. Partitions are paused and stay \
                        assigned.",
        resolution: "Check `instances.*.url`, whether a proxy must be set, and whether this host trusts the \
                     certificate authority of the instance (`instances.*.ca_file`). `nowbridge check` tries each step \
                     separately.",
    },
    ErrorPage {
        number: 2,
        codes: &["timeout", "connection_lost", "abandoned"],
        title: "no response to the request",
        message: "no response before the deadline; connection lost",
        cause: "The instance may have applied the write, and may still do so until its transaction quota ends. \
                Retrying without verification is how duplicate tickets are created.",
        bridge_action: "Holds the alert and verifies in the instance whether the ticket, the values or the note's \
                        marker are there: at once, and again when the write can no longer commit. Only then does \
                        it retry. This neither duplicates nor loses writes.",
        resolution: "None if it is rare. Otherwise look for slow business rules on the table (`Server-Timing` in the \
                     instance's transaction log), or for a proxy with a timeout below `instances.*.request_deadline`.",
    },
    ErrorPage {
        number: 3,
        codes: &["unauthorized", "token_rejected", "oauth", "credentials_changed", "credentials_untried"],
        title: "the instance rejected the credentials",
        message: "401 User Not Authenticated: Required to provide Auth information",
        cause: "Wrong user, password, client or token; or the account is locked, which happens automatically after a \
                few wrong logins.",
        bridge_action: "Stops all routes of the instance and retries the password after one, two and four minutes, \
                        once for all routes. After four consecutive rejections it waits for new credentials or \
                        `nowbridge resume`, because a fifth attempt may lock the account. New credentials in their \
                        files are tried at once. Nothing is lost.",
        resolution: "Put the right credentials into the file or variable that the configuration names. In ServiceNow, \
                     check that the user is active and not locked out, whether `web_service_access_only` is set, and \
                     that the password does not have to be reset. If you fixed the account in ServiceNow, run \
                     `nowbridge resume`.",
    },
    ErrorPage {
        number: 4,
        codes: &["acl"],
        title: "an ACL of the record forbids the write",
        message: "403 Operation Failed: ACL Exception Insert (or Update) Failed due to security constraints",
        cause: "The bridge's user may use the API, but may not write this record.",
        bridge_action: "Writes the alert's events to the dead letters and parks its key, so that later events follow \
                        in order. After several consecutive rejections the rejection limit stops the route, because \
                        then the alert is not the cause.",
        resolution: "Give the user a role with create and write access to the table (`itil` for incident), or add one \
                     of the user's roles to the ACL. Debug Security Rules in ServiceNow shows the ACL. Then run \
                     `nowbridge dead-letters redrive`.",
    },
    ErrorPage {
        number: 5,
        codes: &["api_acl"],
        title: "the bridge's user may not use the table or the API",
        message: "403 User Not Authorized: Failed API level ACL Validation; or Access to unscoped api is not allowed",
        cause: "The user lacks the role for the REST API (`snc_platform_rest_api_access`, contained in `itil`), the \
                table does not allow web services, or the scope of the OAuth client does not include it.",
        bridge_action: "As SN-004: dead letters, parked keys, then the rejection limit.",
        resolution: "Give the user the role; select `Allow access to this table via web services` (Application Access \
                     of the table); extend the scope of the OAuth application. Then redrive.",
    },
    ErrorPage {
        number: 6,
        codes: &["data_policy"],
        title: "a mandatory field of a data policy is empty",
        message: "403 Operation Failed: Data Policy Exception: The following fields are mandatory: Resolution code, \
                  Close notes",
        cause: "The fields that the message names (by label) are empty. A frequent cause: the value was sent, but is \
                not a choice of this instance, which silently clears it. Close codes differ by release.",
        bridge_action: "Writes dead letters and parks the key.",
        resolution: "Set the field in the route's `fields` or `closing`, with a value from the instance's choice list \
                     (`nowbridge check` compares both). Then redrive.",
    },
    ErrorPage {
        number: 7,
        codes: &["business_rule"],
        title: "a business rule of the instance aborted the write",
        message: "403 Operation Failed: Operation against file 'incident' was aborted by Business Rule \
                  '<name>^<sys_id>'",
        cause: "A script of the instance rejects this write. The response contains the name of the rule, but not its \
                message.",
        bridge_action: "Writes dead letters and parks the key.",
        resolution: "Read the rule (the message contains its sys_id). Change the mapping so that the rule accepts the \
                     write, or change the rule for the bridge's user. Then redrive.",
    },
    ErrorPage {
        number: 8,
        codes: &["http_404"],
        title: "the record does not exist or is not visible",
        message: "404 No Record found: Record doesn't exist or ACL restricts the record retrieval",
        cause: "For a ticket: it was deleted, moved to another domain, or the bridge's user may no longer read it. \
                For a new ticket: the table does not exist or is not accessible.",
        bridge_action: "Looks the ticket up by its correlation. If it is gone, it counts as closed: the next opening \
                        event creates a new one, an update is skipped. Many at once trigger the rejection limit, \
                        because then access was lost.",
        resolution: "None for a single deleted ticket. If there are many, check whether the user's roles or domain \
                     have changed.",
    },
    ErrorPage {
        number: 9,
        codes: &["http_429"],
        title: "the instance limits the request rate",
        message: "429 Rate limit exceeded: Rate limit of 100 requests per hour for Table API exceeded; or a bare 429",
        cause: "With `Retry-After`: a rate limit rule is exhausted. Without: all threads for integrations are busy \
                (about four per node, shared by all integrations).",
        bridge_action: "Waits exactly as long as `Retry-After` says, for that table and method only. It learns the \
                        rule from the response headers and spreads its requests evenly. After a 429 without headers \
                        it lowers its concurrency. Nothing is lost; meanwhile events are folded.",
        resolution: "None. If it lasts: ask for a rate limit rule for the bridge's user, set `instances.*.rate` to \
                     it, and watch the estimated time to drain on the console. `write: batch` puts many writes into \
                     one request.",
    },
    ErrorPage {
        number: 10,
        codes: &["unique_key", "http_409"],
        title: "a record with this unique value already exists",
        message: "Unique Key violation detected by database (Duplicate entry 'X' for key 'Y'); 409",
        cause: "Another write of the same value came first, probably an earlier one of the bridge whose response was \
                lost.",
        bridge_action: "Looks up the ticket and continues with it.",
        resolution: "None, unless it repeats for one key: then another system writes the same correlation.",
    },
    ErrorPage {
        number: 11,
        codes: &["http_4xx", "rejected", "request", "http_403"],
        title: "the instance rejects the request",
        message: "400 Invalid table <name>; 400 Exception while reading request; 413; 415; any other 4xx",
        cause: "Nothing was written, and the instance would reject the same request again.",
        bridge_action: "Writes dead letters with the instance's message and parks the key. Several consecutive \
                        rejections trigger the rejection limit.",
        resolution: "Read the message: `Invalid table` is about the route's `table`; `Rejected large REST payload` \
                     needs shorter texts in the mapping. `nowbridge check` finds most causes. Then redrive.",
    },
    ErrorPage {
        number: 12,
        codes: &["http_502", "http_503", "http_504", "http_408"],
        title: "a gateway in front of the instance responded",
        message: "502, 503, 504, usually with an HTML page",
        cause: "A restart, an upgrade or a lost node; usually takes minutes. The write may have been applied \
                nevertheless.",
        bridge_action: "Treats the write as ambiguous and verifies it, as in SN-002. Then it sends one request at a \
                        time until the instance responds.",
        resolution: "None. The status page of the instance shows the expected duration.",
    },
    ErrorPage {
        number: 13,
        codes: &["http_5xx"],
        title: "the instance failed while executing the request",
        message: "500 Transaction cancelled: maximum execution time exceeded; 500 Exception while executing request",
        cause: "A script failed, or the transaction exceeded a quota (60 s, or 30 s in a batch). The record may have \
                been written nevertheless.",
        bridge_action: "Verifies the write; if it was not applied, retries with increasing backoff.",
        resolution: "If it repeats for one ticket, a business rule fails on it; see the instance's log at that time.",
    },
    ErrorPage {
        number: 14,
        codes: &["hibernating"],
        title: "instance hibernating",
        message: "200 with a page: Instance Hibernating",
        cause: "A developer instance that was not used for some hours. It returns this page for every request.",
        bridge_action: "Waits and retries with a single request. Unprocessed events stay in Kafka.",
        resolution: "Wake it on developer.servicenow.com.",
    },
    ErrorPage {
        number: 15,
        codes: &["not_api", "redirected"],
        title: "the response is not from ServiceNow's API",
        message: "200 with a login page; the instance redirects the request; HTTP 404, but not from the API",
        cause: "The URL points to another server, or single sign-on or a proxy responds instead.",
        bridge_action: "Treats the instance as unavailable: waits, retries with a single request. It verifies a write \
                        before it retries it.",
        resolution: "Open the URL in the message. `instances.*.url` is `https://<name>.service-now.com`, without a \
                     path.",
    },
    ErrorPage {
        number: 16,
        codes: &["proxy_auth"],
        title: "the proxy requires authentication",
        message: "the proxy requires credentials (407)",
        cause: "The request did not pass your proxy.",
        bridge_action: "Waits and retries with a single request.",
        resolution: "Set the proxy with its user in `instances.*.proxy`.",
    },
    ErrorPage {
        number: 17,
        codes: &["broken_response", "spliced_error", "response_too_long"],
        title: "the response is incomplete or too long",
        message: "truncated JSON, an error inside a success, a response beyond the size limit",
        cause: "A transaction quota ended a list while the instance sent it, or a proxy cut the response.",
        bridge_action: "Discards the response: retries a read, verifies a write.",
        resolution: "If it repeats: read fewer rows per page (`sources.*.page_size`), or find the proxy that cuts \
                     responses.",
    },
    ErrorPage {
        number: 18,
        codes: &["http_202"],
        title: "202 Accepted without a record",
        message: "202 with an empty body",
        cause: "The queue of the session was full, and the instance most likely did not execute the request.",
        bridge_action: "Verifies the write, then retries it. The bridge's connections do not share sessions, so this \
                        should not happen.",
        resolution: "Check whether a proxy adds cookies to the bridge's requests.",
    },
    ErrorPage {
        number: 19,
        codes: &["row_differs", "columns_unreadable", "correlation_unreadable"],
        title: "the record differs from the write",
        message: "ticket written, but not as sent: state: sent \"6\", INC0010001 has \"2\"; the record was returned \
                  without a usable correlation_id",
        cause: "A business rule changed the value back, or the bridge's user may not read (or write) the column; the \
                instance then silently leaves it out.",
        bridge_action: "A response that shows another record is verified. A ticket without its correlation, or whose \
                        state stays, is kept as it is, reported (`nowbridge_ineffective_writes_total`) and not tried \
                        again; several in a row stop the route (`rejection_limit`).",
        resolution: "Give the user read and write access to `correlation_id`, `state` and the mapped columns \
                     (`nowbridge check` tries each), or change the rule.",
    },
    ErrorPage {
        number: 20,
        codes: &["query_ignored", "query_rejected"],
        title: "the instance ignores part of the query",
        message: "the instance ignored the query: it returned rows with N other values of correlation_id; a query \
                  that can't be encoded",
        cause: "An instance ignores conditions on columns that do not exist or may not be read, and returns other \
                rows.",
        bridge_action: "Discards these rows, and retries later.",
        resolution: "Check that the table has `correlation_id` and that the user may read it. Set \
                     `glide.invalid_query.returns_no_rows`.",
    },
    ErrorPage {
        number: 21,
        codes: &["batch_ended", "not_sent", "no_slot"],
        title: "the request was not executed",
        message: "requests of a batch that the instance lists as unserviced; a request that was not sent",
        cause: "Nothing was written, for certain.",
        bridge_action: "Sends it again at once, in the next call.",
        resolution: "None. If there are many: use smaller batches (`batch.size`).",
    },
    ErrorPage {
        number: 22,
        codes: &["ambiguous_note"],
        title: "it is unknown whether the note was written",
        message: "the response was lost, and the journal is not readable",
        cause: "A note leaves no trace in the row. Only `sys_journal_field` contains it, and the bridge's user may \
                not read that table.",
        bridge_action: "Writes the event to the dead letters rather than risking a duplicate note. It does not park \
                        the key.",
        resolution: "Give the user the right to read `sys_journal_field` for the table. Look at the ticket; redrive \
                     the dead letter if its note is missing.",
    },
    ErrorPage {
        number: 23,
        codes: &["import_error"],
        title: "the transform map failed on a row",
        message: "201 with a row of status \"error\": Data Policy Exception, No transform entry or scripts are \
                  defined, …",
        cause: "The row was staged, but not transformed. The message is that of the map or of the table's own rules.",
        bridge_action: "Writes dead letters with this message and parks the key. If the row names a ticket, the \
                        bridge verifies the ticket.",
        resolution: "Import Set Rows in ServiceNow shows the staged row with its error. Fix the map or the route's \
                     fields, then redrive.",
    },
    ErrorPage {
        number: 24,
        codes: &["import_ignored"],
        title: "the transform map ignored a row",
        message: "201 with a row of status \"ignored\" or \"skipped\"",
        cause: "A script of the map sets `ignore`, or the write would not have changed the ticket although it should.",
        bridge_action: "Reads the ticket. If the ticket has the values of the write, the write counts as applied; \
                        otherwise it writes dead letters and parks the key.",
        resolution: "Read the map's onBefore scripts; docs/SERVICENOW.md, \"Import sets\", shows the only one that is \
                     needed. Then redrive.",
    },
    ErrorPage {
        number: 25,
        codes: &["import_coalesced", "import_no_map"],
        title: "the transform map is set up wrongly",
        message: "the row of a new ticket was written to an existing ticket; no active transform map wrote the table",
        cause: "The map coalesces on another column than the one with the ticket's sys_id. It would write to closed \
                tickets, or put two alerts into one ticket.",
        bridge_action: "Writes dead letters; after several, the rejection limit stops the route.",
        resolution: "Set up the map as in docs/SERVICENOW.md, \"Import sets\"; `nowbridge check --write-probe` tests \
                     it. Check the ticket that the message names, because the map has written to it.",
    },
    ErrorPage {
        number: 26,
        codes: &[
            "import_many_maps",
            "import_recreated",
            "import_row_differs",
            "import_status",
            "import_unnamed",
            "import_unread",
            "import_unreadable",
            "row_missing",
        ],
        title: "the response does not show the outcome of a staged row",
        message: "an empty response or list of results; an unknown status; a row without the ticket's sys_id or with \
                  another one; several transform maps; a new ticket made from an update",
        cause: "The ticket was deleted meanwhile, the instance transforms rows only after its response, the user may \
                not read the staging table or the ticket, or more than one map writes the table.",
        bridge_action: "Verifies the ticket before any further write.",
        resolution: "None for single rows. If it affects all rows: the staging table must transform synchronously, \
                     by one map, and the user must be able to read it; see docs/SERVICENOW.md, \"Import sets\".",
    },
    ErrorPage {
        number: 27,
        codes: &["event_not_inserted", "event_severity"],
        title: "the instance did not insert an event",
        message: "\"0 events were inserted\"; the severity \"critical\" is not 1 (critical) to 5 (info) or 0 (clear)",
        cause: "Event Management does not give a reason. Nothing of the event was written.",
        bridge_action: "Writes a dead letter and parks the key; after several, the rejection limit stops the route.",
        resolution: "Check `fields`: `severity` must render to a number, and the columns must be those of em_event. \
                     Test an event with `nowbridge check --write-probe`. Then redrive.",
    },
    ErrorPage {
        number: 28,
        codes: &["events_missing", "events_unreadable"],
        title: "the response does not show which events were inserted",
        message: "6 events were sent; the instance responded \"5 events were inserted\"; events were returned without \
                  additional_info",
        cause: "The response contains only the count. Which events were inserted is visible only in em_event, if the \
                bridge's user may read it.",
        bridge_action: "Verifies each event by its marker, sends missing events again, and sends events one by one \
                        for a minute.",
        resolution: "None for single events. Otherwise give the user read access to em_event with additional_info, \
                     severity and message_key.",
    },
];
