# genstream in an image: one static path, no shell needed, no root.
#
# The binary links SQLite and the C library, so it is built and run on the same
# release of Debian.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=1 go build -trimpath -ldflags="-s -w" -o /out/genstream ./cmd/genstream \
 && install -d -o 65532 -g 65532 -m 0700 /out/data

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/genstream /usr/local/bin/genstream
# A named volume that is mounted here the first time takes the owner over.
COPY --from=build --chown=65532:65532 /out/data /data
ENV GENSTREAM_DATA=/data
USER 65532:65532
WORKDIR /data
STOPSIGNAL SIGTERM
# There is no HEALTHCHECK: --ops-listen answers /healthz and /readyz to whoever runs the container.
ENTRYPOINT ["/usr/local/bin/genstream"]
CMD ["help"]
