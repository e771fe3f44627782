# tidegate, and a shell for jobs that need no more than that. For jobs that do, build on it, with what
# `docker build -t tidegate .` makes of this:
#
#   FROM tidegate
#   USER root
#   RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
#   USER tidegate

FROM rust:1-slim-trixie AS build
WORKDIR /build

# The dependencies are a layer of their own: they change seldom and take most of the time.
COPY Cargo.toml Cargo.lock ./
COPY crates/core/Cargo.toml crates/core/
COPY crates/daemon/Cargo.toml crates/daemon/
RUN mkdir src crates/core/src crates/daemon/src \
 && touch src/lib.rs crates/core/src/lib.rs crates/daemon/src/lib.rs \
 && echo 'fn main() {}' >crates/daemon/src/main.rs \
 && cargo build --release --locked --bin tidegate \
 && rm -r src crates/*/src

COPY src src
COPY crates crates
# Cargo goes by modification times, and the sources' may be older than the placeholders that it has just built.
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

# Over the Unix socket, so it needs no listener, no token and no HTTP client. Ready or not is another question
# (/readyz): a broker that is away is no reason to restart a supervisor that waits for it. Nor is a configuration
# that a reload has refused, hence the socket by name, which keeps `status` from reading the file.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["tidegate", "status", "--socket", "/run/tidegate/tidegate.sock"]

# No init: tidegate handles the signals of PID 1 and collects its children.
ENTRYPOINT ["tidegate"]
CMD ["run"]
