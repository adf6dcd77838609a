"""The page at /docs: renders /openapi.json with no script from anywhere else, so it works offline."""

DOCS_HTML = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>banditloop API</title>
<style>
 body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
 details{border:1px solid #ddd;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
 summary{cursor:pointer} code,pre,textarea{font:13px/1.4 ui-monospace,monospace}
 pre{background:#f6f6f6;padding:.6rem;overflow:auto;border-radius:6px} textarea{width:100%;height:8rem}
 .m{display:inline-block;width:3.2rem;font-weight:700;color:#06c} h3{margin-bottom:.2rem}
</style>
<h1>banditloop API</h1><p>Generated from <a href="/openapi.json">/openapi.json</a>.</p>
<div id="paths">Loading&hellip;</div><h2>Schemas</h2><div id="schemas"></div>
<script>
const el=(t,text,c)=>{const e=document.createElement(t);if(text)e.textContent=text;if(c)e.className=c;return e};
const show=s=>s.$ref?s.$ref.split('/').pop():JSON.stringify(s);
fetch('/openapi.json').then(r=>r.json()).then(d=>{
 const root=document.getElementById('paths');root.textContent='';
 for(const [path,ops] of Object.entries(d.paths))for(const [method,op] of Object.entries(ops)){
  const box=el('details'),head=el('summary');
  head.append(el('span',method.toUpperCase(),'m'),el('code',path),' '+op.summary);box.append(head);
  if(op.requestBody)box.append(el('p','Body: '+show(op.requestBody.content['application/json'].schema)));
  for(const [status,r] of Object.entries(op.responses))
   box.append(el('p',status+': '+show(r.content['application/json'].schema)));
  root.append(box);
 }
 const out=document.getElementById('schemas');
 for(const [name,s] of Object.entries(d.components.schemas)){
  const box=el('details');box.append(el('summary',name),el('pre',JSON.stringify(s,null,1)));out.append(box);
 }
});
</script></html>
"""
