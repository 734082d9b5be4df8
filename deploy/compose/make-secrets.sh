#!/bin/sh
# Make what docker-compose.yml wants to be told in secret: passwords, the URLs that hold them, the master key.
#
# Run it in the repository, once, before `docker compose up`. It never overwrites a file: run again, it makes what is
# missing, but no new password beside a file that holds the old one. The files lie in deploy/compose/secrets, for this user and their group only; .env says which group, so that
# containers may read them, whatever user they run as.
set -eu
cd "$(dirname "$0")/../.."

secrets=deploy/compose/secrets
umask 027
mkdir -p "$secrets"
printf '*\n' > "$secrets/.gitignore"

if [ "$(id -u)" = 0 ]; then
    # No container needs to be in root's group: 10001 is the image's own.
    gid=10001
else
    gid=$(id -g)
fi

random() { # 32 random bytes, as hexadecimal digits: they stand in a URL as they are
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

keep() { # FILE: standard input becomes the file, unless there is one; never half a file
    if [ -e "$secrets/$1" ]; then
        cat > /dev/null
        return
    fi
    cat > "$secrets/.$1.new"
    chmod 0440 "$secrets/.$1.new"
    [ "$(id -u)" != 0 ] || chgrp "$gid" "$secrets/.$1.new"
    mv "$secrets/.$1.new" "$secrets/$1"
    echo "made $secrets/$1"
}

agree() { # FILE OTHER…: nothing is made where a password is gone and stands in another file all the same
    [ ! -e "$secrets/$1" ] || return 0
    gone=$1
    shift
    for other; do
        [ -e "$secrets/$other" ] || continue
        echo "$secrets/$gone is missing, and $secrets/$other holds its password; a new one would not fit. Nothing was made." >&2
        echo "Put the file back: it is the password alone, as the other has it. Or, where Postgres and RabbitMQ have no" >&2
        echo "data yet, or none to keep (docker compose down --volumes), remove the other as well. Then run this again." >&2
        exit 1
    done
}

agree postgres_password database_url
agree broker_password broker_url rabbitmq_conf

random | keep postgres_password
random | keep broker_password
random | keep grafana_password

postgres_password=$(cat "$secrets/postgres_password")
broker_password=$(cat "$secrets/broker_password")
echo "postgresql://tocsin:$postgres_password@postgres:5432/tocsin" | keep database_url
echo "amqp://tocsin:$broker_password@rabbitmq:5672/tocsin" | keep broker_url
printf 'default_vhost = tocsin\ndefault_user = tocsin\ndefault_pass = %s\n' "$broker_password" | keep rabbitmq_conf

# A line of a master key file, as `tocsin key init` writes it: an id and 32 random bytes in base64.
key_id=key-$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')
echo "$key_id $(head -c 32 /dev/urandom | base64)" | keep master_key

touch .env
if ! grep -q '^SECRETS_GID=' .env; then
    [ -z "$(tail -c 1 .env)" ] || echo >> .env
    echo "SECRETS_GID=$gid" >> .env
fi
echo "Back up $secrets/master_key apart from the database: without it no stored secret can be opened."
