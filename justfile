# Commands that people type. `just` lists them; each can also be typed as it stands here.

# List the recipes.
default:
    @just --list

# Run the demo: embedded broker, simulated ServiceNow, a storm of alerts, and a count of what arrived.
demo *ARGS:
    cargo run -- demo {{ARGS}}

# Run all tests, as CI does.
test:
    cargo test

# Run the unit tests, the simulation's histories included, without a broker.
test-unit FILTER="":
    cargo test --lib {{FILTER}}

# Run the integration tests; they start Apache Kafka if a JDK and Maven are installed.
test-integration FILTER="":
    cargo test --test it {{FILTER}} -- --nocapture

# Run integration tests on Apache Kafka in Docker.
test-docker FILTER="":
    NOWBRIDGE_TEST_BROKER=docker cargo test --features docker --test it {{FILTER}} -- --nocapture

# Run the crash tests at full size, with these seeds: one run per seed, in which bridges are killed at random points.
test-chaos SEEDS="1..=100":
    NOWBRIDGE_SEEDS={{SEEDS}} cargo test --test it chaos -- --nocapture

# Simulate so many histories of the delivery engine.
simulate-histories COUNT="1000000":
    NOWBRIDGE_HISTORIES={{COUNT}} cargo test --profile bench --lib histories -- --nocapture

# Check format, lints, documentation and licenses.
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
    cargo deny --config .deny.toml check bans licenses sources

# Write the generated documents and schemas again.
generate:
    NOWBRIDGE_BLESS=1 cargo test --test it docs
    NOWBRIDGE_BLESS=1 cargo test --lib config

# Measure against the physical limits, and compare with other ways of moving alerts.
bench *ARGS:
    cargo bench --bench delivery -- {{ARGS}}

# Run what CI runs.
ci:
    bash .ci/run
