# A Kafka broker (KRaft, one process) from its jars. Debian has none; Java and Maven are Debian's.
# org.apache.kafka:kafka-tools-api of this version is not in the registry, and the broker does not
# need it: without the exclusion Maven fails.
kafka=4.4.0
slf4j=1.7.36

kafka_jars() {
    local folder=$cache/kafka
    rm -rf "$folder"
    mkdir -p "$folder"
    cat >"$folder/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>flue</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka</version>
      <exclusions><exclusion>
        <groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId>
      </exclusion></exclusions>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$slf4j</version>
    </dependency>
  </dependencies>
</project>
POM
    (cd "$folder" && retry mvn -B -q dependency:copy-dependencies -DoutputDirectory=lib -DincludeScope=runtime)
}

command -v java >/dev/null || install_packages openjdk-17-jre-headless
command -v kcat >/dev/null || install_packages kcat
if ! stamp kafka tests/e2e/servers/kafka.sh || ! ls "$cache"/kafka/lib/kafka_2.13-*.jar >/dev/null 2>&1; then
    command -v mvn >/dev/null || install_packages maven
    kafka_jars
    stamped kafka
fi
exports="$exports
FLUE_TEST_KAFKA='$cache/kafka/lib'"
