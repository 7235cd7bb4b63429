#!/usr/bin/env bash
# Write the one comment of the gate on a pull request: found by its marker and brought up to date. Never fails a job.
#
#   QAEVAL_OUT          folder with comment.md
#   QAEVAL_PULL         number of the pull request; empty: there is none
#   QAEVAL_AUTHOR       who wrote the comment that is looked for; github-actions[bot] when left out
#   QAEVAL_LINK         where the job's log is
#   GITHUB_TOKEN        must be allowed to write pull requests; empty: no comment
#   GITHUB_REPOSITORY, GITHUB_API_URL   as GitHub sets them
set -euo pipefail

MARKER='<!-- qaeval-gate -->'
say() { echo "comment: $*"; exit 0; }

case "${QAEVAL_PULL:-}" in
  '') say "this job belongs to no pull request; the job's summary has the verdict" ;;
  *[!0-9]*) say "expected the number of a pull request, got something else" ;;
esac
[ -n "${GITHUB_TOKEN:-}" ] || say "no token, as for pull requests from forks; the job's summary has the verdict"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
body="${QAEVAL_OUT:?}/comment.md"
if [ ! -f "$body" ]; then # an older comment must not go on saying what held before
  body="$work/comment.md"
  printf '%s\n### qaeval gate: no verdict\n\nThe job ended before the gate came to one: %s\n' "$MARKER" "${QAEVAL_LINK:-see its log}" > "$body"
fi
python3 -c 'import json, pathlib, sys; print(json.dumps({"body": pathlib.Path(sys.argv[1]).read_text("utf-8")}))' "$body" > "$work/body.json"

api() { # METHOD PATH [FILE WITH THE BODY]; the token is in no command line
  printf 'Authorization: Bearer %s\n' "$GITHUB_TOKEN" |
    curl -sS --fail --max-time 60 -X "$1" -H @- -H 'Accept: application/vnd.github+json' \
      ${3:+--data-binary "@$3"} "${GITHUB_API_URL:-https://api.github.com}/$2"
}

comments="repos/${GITHUB_REPOSITORY:?}/issues/$QAEVAL_PULL/comments"
known=''
for page in $(seq 1 50); do
  api GET "$comments?per_page=100&page=$page" > "$work/page.json" 2> "$work/error" ||
    say "the comments cannot be read: $(tail -n 1 "$work/error"); the job's summary has the verdict"
  found=$(python3 -c '
import json, sys
page = json.load(open(sys.argv[1], encoding="utf-8"))
# a comment may be empty, and who wrote it gone
own = [one for one in page if (one["body"] or "").startswith(sys.argv[2]) and (one["user"] or {}).get("login") == sys.argv[3]]
print(len(page), *(int(one["id"]) for one in own[:1]))' "$work/page.json" "$MARKER" "${QAEVAL_AUTHOR:-github-actions[bot]}" 2> "$work/error") ||
    say "the comments cannot be read: $(tail -n 1 "$work/error"); the job's summary has the verdict"
  known=$(echo "$found" | cut -s -d ' ' -f 2)
  { [ -z "$known" ] && [ "${found%% *}" -ge 100 ]; } || break
done

if [ -n "$known" ]; then
  method=PATCH path="repos/$GITHUB_REPOSITORY/issues/comments/$known" done="brought up to date"
else
  method=POST path="$comments" done="written"
fi
api "$method" "$path" "$work/body.json" > /dev/null 2> "$work/error" ||
  say "the token may not write pull requests (permissions: pull-requests: write): $(tail -n 1 "$work/error"); the job's summary has the verdict"
say "$done"
