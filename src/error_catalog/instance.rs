//! What an instance, or the way to it, answers.

use super::ErrorPage;

pub(super) const PAGES: &[ErrorPage] = &[
    ErrorPage {
        number: 1,
        codes: &["connect", "http_client"],
        title: "no connection to the instance",
        said: "the connection could not be made: (DNS, refused, TLS)",
        means: "Nothing left this machine, so nothing was written.",
        does: "Tries again with growing pauses, first with one request; partitions pause, the group is kept.",
        todo: "Is `instances.*.url` right? Does a proxy have to be set? Is the instance's certificate signed by an \
               authority that this host knows (`instances.*.ca_file`)? `nowbridge check` tries each step by itself.",
    },
    ErrorPage {
        number: 2,
        codes: &["timeout", "connection_lost", "abandoned"],
        title: "the answer never came",
        said: "no answer before the deadline; the connection was lost",
        means: "The instance may have applied the write, and may still do so until its own quota ends the transaction. A \
                blind second try is how tickets get doubled.",
        does: "Holds the alert back, looks in the instance for the ticket, the values or the note's marker, at once and \
               again when nothing can come any more, and only then writes again. Nothing is doubled or lost by it.",
        todo: "Nothing, if it is rare. If it is not: slow business rules on the table (ask for `Server-Timing` in the \
               instance's transaction log), or a proxy that gives up earlier than `instances.*.request_deadline`.",
    },
    ErrorPage {
        number: 3,
        codes: &["unauthorised", "token_refused", "oauth", "credentials_changed", "credentials_untried"],
        title: "the credentials were refused",
        said: "401 User Not Authenticated: Required to provide Auth information",
        means: "Wrong user, password, client or token; or the account is locked out, which happens by itself after a few \
                wrong logins.",
        does: "Stops all routes of the instance, and tries the password again after a minute, two and four: once for all of \
               them. After four refusals in a row it waits, since a fifth may lock the account. New credentials in their \
               files are tried at once. Nothing is lost.",
        todo: "Put the right credentials into the file or variable that the configuration names. In ServiceNow: is the \
               user active, not locked out, `web_service_access_only` perhaps set, its password not to be reset? \
               Once it is put right there: `nowbridge resume`.",
    },
    ErrorPage {
        number: 4,
        codes: &["acl"],
        title: "an access rule of the record forbids the write",
        said: "403 Operation Failed: ACL Exception Insert (or Update) Failed due to security constraints",
        means: "The bridge's user may use the API, but not write this record.",
        does: "The alert's events become dead letters, and its key is parked: later ones follow in order. After several \
               such refusals in a row the brake stops the route, since then it is not the alert.",
        todo: "Give the user a role with create and write on the table (`itil` for incident), or the access rule a role of \
               the user's. Debug Security Rules in ServiceNow names the rule. Then `nowbridge dead-letters redrive`.",
    },
    ErrorPage {
        number: 5,
        codes: &["api_acl"],
        title: "the table, or the API, is closed to the bridge's user",
        said: "403 User Not Authorized: Failed API level ACL Validation; or Access to unscoped api is not allowed",
        means: "The user lacks the role for the REST API (`snc_platform_rest_api_access`, contained in `itil`), the table does \
                not allow web services, or the OAuth client's scope does not reach it.",
        does: "As SN-004: dead letters, parked keys, then the brake.",
        todo: "Give the role; tick `Allow access to this table via web services` (table's Application Access); widen the \
               OAuth application's scope. Then redrive.",
    },
    ErrorPage {
        number: 6,
        codes: &["data_policy"],
        title: "a data policy wants a field that is missing",
        said: "403 Operation Failed: Data Policy Exception: The following fields are mandatory: Resolution code, Close notes",
        means: "The fields it names (by their labels) are empty. A frequent cause: the value was sent, but is no choice of \
                this instance, which blanks it silently. Close codes differ by release.",
        does: "Dead letters, and the key is parked.",
        todo: "Set the field in the route's `fields` or `closing`, with a value from the instance's choice list (`nowbridge \
               check` compares both). Then redrive.",
    },
    ErrorPage {
        number: 7,
        codes: &["business_rule"],
        title: "a business rule of the instance aborted the write",
        said: "403 Operation Failed: Operation against file 'incident' was aborted by Business Rule '<name>^<sys_id>'",
        means: "Somebody's script does not want this write. Its own message is not passed on; its name is.",
        does: "Dead letters, and the key is parked.",
        todo: "Read the rule (its sys_id is in the message), change the mapping so that it is content, or the rule so that it \
               lets the bridge's user pass. Then redrive.",
    },
    ErrorPage {
        number: 8,
        codes: &["http_404"],
        title: "the record is not there, or not to be seen",
        said: "404 No Record found: Record doesn't exist or ACL restricts the record retrieval",
        means: "For a ticket: deleted, moved to another domain, or no longer readable for the bridge's user. For a new one: the \
                table is unknown or closed.",
        does: "Looks for the ticket by its correlation. If it is gone, it counts as closed: the next opening event makes a \
               new one, an update becomes nothing. Many at once pull the brake, since then a right was lost.",
        todo: "Nothing for a single deleted ticket. Many: compare the user's roles and domain with last week's.",
    },
    ErrorPage {
        number: 9,
        codes: &["http_429"],
        title: "the instance wants fewer requests",
        said: "429 Rate limit exceeded: Rate limit of 100 requests per hour for Table API exceeded; or a bare 429",
        means: "With `Retry-After`: a rate limit rule is used up. Without: all threads for integrations are busy (four or so \
                a node, for everybody).",
        does: "Waits exactly as long as told, for that table and method only; learns the rule from its headers and spends it \
               evenly; after a bare one has fewer requests at once. Nothing is lost; alerts fold meanwhile.",
        todo: "Nothing. If it lasts: ask for a rule of its own for the bridge's user, set `instances.*.rate` to it, and see \
               the backlog's forecast on the page. `write: batch` puts many writes into one request.",
    },
    ErrorPage {
        number: 10,
        codes: &["unique_key", "http_409"],
        title: "the instance says that it is there already",
        said: "Unique Key violation detected by database (Duplicate entry 'X' for key 'Y'); 409",
        means: "Another write of the same value came first, probably an earlier one of ours whose answer was lost.",
        does: "Looks for the ticket and goes on with it.",
        todo: "Nothing, unless it repeats for one key: then another system writes the same correlation.",
    },
    ErrorPage {
        number: 11,
        codes: &["http_4xx", "rejected", "request", "http_403"],
        title: "the instance does not take this request",
        said: "400 Invalid table <name>; 400 Exception while reading request; 413; 415; any other 4xx",
        means: "Nothing was written, and the same request would be refused again.",
        does: "Dead letters with the instance's words, and the key is parked. Several in a row pull the brake.",
        todo: "Read the words: `Invalid table` is the route's `table`; `Rejected large REST payload` wants shorter texts in the \
               mapping. `nowbridge check` finds most of these. Then redrive.",
    },
    ErrorPage {
        number: 12,
        codes: &["http_502", "http_503", "http_504", "http_408"],
        title: "something in front of the instance answered",
        said: "502, 503, 504, mostly a page of HTML",
        means: "A restart, an upgrade, a node that was lost; minutes, as a rule. A write may have gone through all the same.",
        does: "A write is in doubt and looked for, as in SN-002. Then one request at a time tries until answers come.",
        todo: "Nothing; the instance's status page says how long.",
    },
    ErrorPage {
        number: 13,
        codes: &["http_5xx"],
        title: "the instance failed while it worked on the request",
        said: "500 Transaction cancelled: maximum execution time exceeded; 500 Exception while executing request",
        means: "A script failed, or the transaction ran into a quota (60 s, or 30 s in a batch). The record may be there \
                nevertheless.",
        does: "Looks whether it is there, and tries again otherwise, with growing pauses.",
        todo: "If it repeats for one ticket: a business rule breaks on it; the instance's log at that second says which.",
    },
    ErrorPage {
        number: 14,
        codes: &["hibernating"],
        title: "the instance sleeps",
        said: "200 with a page: Instance Hibernating",
        means: "A developer instance that nobody used for some hours. It answers everything with this page.",
        does: "Waits and tries again with one request; what came in stays in Kafka.",
        todo: "Wake it on developer.servicenow.com.",
    },
    ErrorPage {
        number: 15,
        codes: &["not_api", "redirected"],
        title: "that was not ServiceNow's API",
        said: "a login page, a redirect, a 404 that is no JSON",
        means: "The address leads elsewhere, or single sign-on or a proxy answers in its place.",
        does: "Counts it as unavailable: waits, tries with one request. A write is looked for before it is made again.",
        todo: "Open the address that the message names. `instances.*.url` is `https://<name>.service-now.com`, nothing behind \
               it.",
    },
    ErrorPage {
        number: 16,
        codes: &["proxy_auth"],
        title: "the proxy wants a login",
        said: "407",
        means: "The request did not get past your own proxy.",
        does: "Waits and tries with one request.",
        todo: "Set the proxy with its user in `instances.*.proxy`.",
    },
    ErrorPage {
        number: 17,
        codes: &["broken_answer", "spliced_error", "answer_too_long"],
        title: "an answer that can't be trusted",
        said: "JSON that is cut off, an error inside a success, an answer beyond the size that is read",
        means: "A quota ended a list while it was being sent, or something on the way cut it.",
        does: "Takes nothing of it: a read is made again, a write is looked for.",
        todo: "If it repeats: fewer rows a page (`sources.*.page`), or find the proxy that cuts.",
    },
    ErrorPage {
        number: 18,
        codes: &["http_202"],
        title: "taken, and no row",
        said: "202 with an empty body",
        means: "The queue of the session was full, and the request was most likely not executed.",
        does: "Looks for the write, then makes it again. The bridge's connections don't share sessions, so this should not \
               happen.",
        todo: "Does something between keep cookies for the bridge?",
    },
    ErrorPage {
        number: 19,
        codes: &["row_differs", "correlation_differs", "state_differs", "columns_unreadable", "correlation_unreadable"],
        title: "what stands there is not what was sent",
        said: "sent state \"6\", the row has \"2\"; the answer shows no correlation_id",
        means: "A business rule changed it back, or the bridge's user may not read (or write) that column; the instance then \
                leaves it out without a word.",
        does: "Does not believe that the write happened as meant: looks again, then tells, and refuses for good where it \
               stays so.",
        todo: "Give the user read and write on `correlation_id`, `state` and the mapped columns (`nowbridge check` tries each), \
               or change the rule.",
    },
    ErrorPage {
        number: 20,
        codes: &["query_ignored", "query_refused"],
        title: "the instance does not search as asked",
        said: "rows in the answer that don't match the query; a query that can't be encoded",
        means: "An instance ignores conditions on columns that don't exist or may not be read, and answers with other rows.",
        does: "Believes none of these rows, and tries again later.",
        todo: "Does the table have `correlation_id`? May the user read it? Set `glide.invalid_query.returns_no_rows`.",
    },
    ErrorPage {
        number: 21,
        codes: &["batch_ended", "not_sent", "no_slot"],
        title: "not executed",
        said: "requests of a batch that the instance names as unserviced; a request that was not sent after all",
        means: "Certainly nothing happened.",
        does: "Sends it again at once, in the next call.",
        todo: "Nothing. Many of them: batches of fewer requests (`batch.size`).",
    },
    ErrorPage {
        number: 22,
        codes: &["in_doubt"],
        title: "nobody can tell whether the note was written",
        said: "the answer was lost, and the journal is not readable",
        means: "A note leaves no trace in the row; only `sys_journal_field` tells, and the bridge's user may not read it.",
        does: "Writes the event to the dead letters rather than a note twice. The key is not parked.",
        todo: "Give the user the right to read `sys_journal_field` for the table. Look at the ticket; redrive the letter if its \
               note is missing.",
    },
    ErrorPage {
        number: 23,
        codes: &["import_error"],
        title: "the transform map failed on a row",
        said: "201, and in it a row with status \"error\": Data Policy Exception, No transform entry or scripts are defined, …",
        means: "The row was staged, and nothing came of it. The words are those of the map, or of the table's own rules.",
        does: "Dead letters with these words, and the key is parked. Where the row names a ticket it looks what stands there.",
        todo: "Import Set Rows in ServiceNow shows the staged row with its error. Mend the map or the route's fields, then redrive.",
    },
    ErrorPage {
        number: 24,
        codes: &["import_ignored"],
        title: "the transform map ignored a row",
        said: "201, and in it a row with status \"ignored\" or \"skipped\"",
        means: "A script of the map sets `ignore`, or nothing of the ticket would have changed although it should.",
        does: "Reads the ticket. Where it stands as wanted, the write counts as done; else dead letters, and the key is parked.",
        todo: "Read the map's onBefore scripts; the README shows the only one that is needed. Then redrive.",
    },
    ErrorPage {
        number: 25,
        codes: &["import_coalesced", "import_no_map"],
        title: "the transform map is not as the bridge needs it",
        said: "a new row became an update of a ticket; no map made anything of the row",
        means: "The map coalesces on something else than the column with the ticket's sys_id. It would write to closed tickets, or \
                put two alerts into one.",
        does: "Dead letters; after several the brake stops the route.",
        todo: "Set the map up as the README says under \"How tickets are written\"; `nowbridge check --write-probe` tries it. Look at \
               the ticket that the message names: it was written to.",
    },
    ErrorPage {
        number: 26,
        codes: &["import_made_anew", "import_status", "row_missing"],
        title: "what became of a staged row can't be told from the answer",
        said: "an update became a new ticket; an unknown status; an empty list of results",
        means: "The ticket was deleted meanwhile, or the instance transforms rows later than it answers them.",
        does: "Looks for the ticket before anything else is written.",
        todo: "Nothing for single ones. All of them: the staging table must transform at once, not by a schedule.",
    },
    ErrorPage {
        number: 27,
        codes: &["event_not_taken", "event_severity"],
        title: "an event was not taken",
        said: "\"0 events were inserted\"; the severity \"critical\" is none of 1 to 5 or 0",
        means: "Event Management does not say why. Nothing of it was written.",
        does: "A dead letter, and the key is parked; after several the brake stops the route.",
        todo: "Look at `fields`: `severity` must render to a number, and columns must be those of em_event. Try an event with \
               `nowbridge check --write-probe`. Then redrive.",
    },
    ErrorPage {
        number: 28,
        codes: &["events_missing", "events_unreadable"],
        title: "whether events were taken can't be told from the answer",
        said: "6 events were sent, and the instance says \"5 events were inserted\"; events came without additional_info",
        means: "Only the count is told. Which of them stand is seen in em_event, if the bridge's user may read it there.",
        does: "Looks for each by its marker, sends what is not there again, and sends events singly for a minute.",
        todo: "Nothing for single ones. Else let the user read em_event with additional_info, severity and message_key.",
    },
];
