#!/bin/sh
# Makes the passwords and tokens that docker-compose.yml mounts as secrets: make-secrets.sh [FOLDER]
#
# A password or token that exists is kept; the files that repeat one are written again from it. So to change a password, remove
# its file, run this, and start the services again. To change a token without a break, put the new one behind a comma, start the
# API again, let clients change, and remove the old one.
set -eu
folder=${1:-secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder" # what keeps other users of this machine out; the files are readable, as each service has a user of its own
cd "$folder"

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in kafka_password valkey_password api_read_tokens api_write_tokens api_admin_tokens; do
  [ -s "$name" ] || random > "$name"
done

kafka=$(cat kafka_password)
valkey=$(cat valkey_password)
plain=org.apache.kafka.common.security.plain.PlainLoginModule
cat > kafka_jaas <<END
KafkaServer {
  $plain required username="everlong" password="$kafka" user_everlong="$kafka";
};
END
cat > kafka_client <<END
security.protocol=SASL_PLAINTEXT
sasl.mechanism=PLAIN
sasl.jaas.config=$plain required username="everlong" password="$kafka";
END
echo "requirepass $valkey" > valkey_config
echo "redis://:$valkey@valkey:6379/0" > store_url
chmod 644 ./*
echo "the secrets of docker-compose.yml are in $folder; the page's token: cat $folder/api_admin_tokens"
