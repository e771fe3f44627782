# tidegate with a shell, for jobs that need nothing more. For other jobs, build an image on the one that `docker build
# -t tidegate .` makes, with this Dockerfile:
#
#   FROM tidegate
#   USER root
#   RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
#   USER tidegate

FROM rust:1-slim-trixie AS build
WORKDIR /build

# The dependencies are a layer of their own: they seldom change, and building them takes most of the time.
COPY Cargo.toml Cargo.lock ./
COPY crates/core/Cargo.toml crates/core/
COPY crates/sim/Cargo.toml crates/sim/
COPY crates/daemon/Cargo.toml crates/daemon/
RUN mkdir src crates/core/src crates/sim/src crates/daemon/src \
 && touch src/lib.rs crates/core/src/lib.rs crates/sim/src/lib.rs crates/daemon/src/lib.rs \
 && echo 'fn main() {}' >crates/daemon/src/main.rs \
 && cargo build --release --locked --bin tidegate \
 && rm -r src crates/*/src

COPY src src
COPY crates crates
# Cargo compares modification times. The sources may be older than the placeholders that were just built.
RUN find src crates -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --bin tidegate

FROM debian:trixie-slim

RUN groupadd --system --gid 10001 tidegate \
 && useradd --system --uid 10001 --gid tidegate --home-dir /var/lib/tidegate --shell /usr/sbin/nologin tidegate \
 && install -d -o tidegate -g tidegate -m 0700 /run/tidegate /var/lib/tidegate \
 && install -d /etc/tidegate

# For amqps:// brokers with a certificate of a public authority.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/target/release/tidegate /usr/local/bin/tidegate

ENV HOME=/var/lib/tidegate \
    RUNTIME_DIRECTORY=/run/tidegate \
    STATE_DIRECTORY=/var/lib/tidegate
USER tidegate
WORKDIR /var/lib/tidegate
EXPOSE 8672

# Uses the Unix socket, so it needs no listener, no token and no HTTP client. It does not check readiness (/readyz): a
# supervisor that waits for an unreachable broker must not be restarted. A configuration that a reload has refused is
# no reason either, so the command names the socket: then `status` does not read the configuration.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["tidegate", "status", "--socket", "/run/tidegate/tidegate.sock"]

# No init: tidegate handles the signals of PID 1 and reaps its children.
ENTRYPOINT ["tidegate"]
CMD ["run"]
