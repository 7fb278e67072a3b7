# docker build -t nowbridge .
# BASE and RUST select other images for the two stages, for example from a local mirror.
ARG BASE=debian:bookworm-slim
ARG RUST=rust:1-bookworm

FROM ${RUST} AS build
WORKDIR /build
# OpenSSL, a dependency of librdkafka, is built from source.
RUN apt-get update && apt-get install -y --no-install-recommends make perl gcc g++ && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY schemas schemas
# The manifest refers to these files. The image does not need their content.
RUN mkdir -p tests/it tests/bench && touch tests/architecture.rs tests/it/main.rs tests/bench/main.rs \
    && cargo build --release --locked --bin nowbridge && strip target/release/nowbridge

FROM ${BASE}
# ServiceNow's certificates are signed by public authorities.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin nowbridge
COPY --from=build /build/target/release/nowbridge /usr/local/bin/nowbridge
# The bridge writes no files, so the root file system can be read-only.
USER 10001
EXPOSE 9464
ENTRYPOINT ["nowbridge"]
CMD ["--help"]
