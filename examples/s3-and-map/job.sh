# The job: job.sh WORK, with S4_CONF_PATH and the AWS_ variables set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$1
cd "$work"
mkdir in out

# The daemon in front of the ring, on a free port; it says which.
s4raw s3 run --ring --address 127.0.0.1:0 2>daemon.log &
daemon=$!
trap 'kill $daemon; wait $daemon || true' EXIT
for _ in {1..600}; do
    S3D_ENDPOINT=$(grep -o 'http://127.0.0.1:[0-9]*' daemon.log | head -n 1) && break
    kill -0 $daemon 2>/dev/null || { cat daemon.log >&2; exit 1; }
    sleep 0.1
done
export S3D_ENDPOINT AWS_ENDPOINT_URL=$S3D_ENDPOINT AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

# The S3 client: aws, or boto3, or our own. S3_CLIENT picks one.
if [[ -z ${S3_CLIENT:-} ]]; then
    if aws --version >/dev/null 2>&1; then
        S3_CLIENT=aws
    elif python3 -c 'import boto3' 2>/dev/null; then
        S3_CLIENT=boto3
    else
        S3_CLIENT=s4raw
    fi
fi
case $S3_CLIENT in
    aws)
        make_bucket() { aws s3 mb "s3://$1"; }
        upload() { aws s3 cp --quiet --recursive "$1/" "s3://$2/"; }
        download() { aws s3 cp --quiet --recursive "s3://$1/" "$2/"; }
        ;;
    boto3)
        make_bucket() { python3 "$here/boto.py" make_bucket "$1"; }
        upload() { python3 "$here/boto.py" upload "$1" "$2"; }
        download() { python3 "$here/boto.py" download "$1" "$2"; }
        ;;
    s4raw)
        make_bucket() { s4raw s3 mb "$1"; }
        upload() { for file in "$1"/*; do s4raw s3 put "$2/${file##*/}" <"$file"; done; }
        download() {
            s4raw s3 ls "$1/" | while read -r _ _ _ name; do s4raw s3 get -q "$1/$name" >"$2/$name" </dev/null; done
        }
        ;;
    *)
        echo "job.sh: S3_CLIENT is aws, boto3 or s4raw, not $S3_CLIENT" >&2
        exit 1
        ;;
esac
echo "S3 client: $S3_CLIENT"

# Real text, in 12 pieces: 00000 to 00011, which go round the three servers.
cat "$here"/../../README.md "$here"/../../docs/*.md >all
split -n l/12 -d -a 5 all in/
count="tr -cs '[:alnum:]' '\n' | sed '/^$/d' | sort | uniq -c | awk '{ print \$2, \$1 }'"

make_bucket words
upload in words/in                                     # S3
s4raw map s4://words/in/ s4://words/counts/ "$count"   # on the servers that have the pieces
download words/counts out                              # S3

LC_ALL=C awk '{ n[$1] += $2 } END { for (word in n) print word, n[word] }' out/* | LC_ALL=C sort >counts
LC_ALL=C bash -c "$count" <all | LC_ALL=C sort >expected
cmp counts expected
[[ -s counts ]]
echo "check: one process counts the same $(wc -l <counts) words"
