"""The page at /docs: shows /openapi.json without any script from elsewhere, so it works offline."""

DOCS_HTML = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>banditloop API</title><link rel="icon" href="data:,">
<style>
 :root{color-scheme:light dark;--line:#8884;--card:#8881}
 body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
 details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
 summary{cursor:pointer} code,pre{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
 pre{background:var(--card);padding:.6rem;overflow:auto;border-radius:6px}
 .m{display:inline-block;width:3.2rem;font-weight:700;color:#28c} p{margin:.3rem 0}
</style>
<h1>banditloop API</h1><p>Generated from <a href="/openapi.json">/openapi.json</a>.</p>
<div id="paths">Loading&hellip;</div><h2>Schemas</h2><div id="schemas"></div>
<script>
const el=(tag,text,name)=>{
 const e=document.createElement(tag);if(text)e.textContent=text;if(name)e.className=name;return e};
const link=ref=>{const name=ref.split('/').pop(),a=el('a',name);
 a.href='#'+name;
 a.onclick=()=>{document.getElementById(name).open=true};return a};
const said=content=>Object.entries(content||{}).flatMap(([type,{schema}],i)=>[i?', ':'',
 schema?(schema.$ref?link(schema.$ref):el('code',JSON.stringify(schema))):type]);
const line=(text,content,more)=>{
 const p=el('p',text+' ');p.append(...said(content),more?' '+more:'');return p};
const operation=(path,method,op)=>{
 const box=el('details'),head=el('summary');
 head.append(el('span',method.toUpperCase(),'m'),el('code',path),' '+(op.summary||''));
 box.append(head);
 if(op.description)box.append(el('p',op.description));
 for(const p of op.parameters||[])box.append(el('p',p.name+' ('+p.in+') '+(p.description||'')));
 if(op.requestBody)box.append(line('Body:',op.requestBody.content));
 for(const [status,r] of Object.entries(op.responses||{}))
  box.append(line(status+':',r.content,r.description));
 return box};
const methods=['get','put','post','delete','options','head','patch','trace'];
const show=api=>{
 const paths=Object.entries(api.paths||{});
 document.getElementById('paths').replaceChildren(...paths.flatMap(([path,ops])=>
  Object.entries(ops).filter(([m])=>methods.includes(m)).map(([m,op])=>operation(path,m,op))));
 const schemas=Object.entries((api.components||{}).schemas||{});
 document.getElementById('schemas').replaceChildren(...schemas.map(([name,s])=>{
  const box=el('details');box.id=name;
  box.append(el('summary',name),el('pre',JSON.stringify(s,null,1)));return box}));
};
fetch('/openapi.json')
 .then(r=>{if(!r.ok)throw new Error('/openapi.json answers '+r.status);return r.json()}).then(show)
 .catch(e=>{document.getElementById('paths').textContent=String(e);throw e});
</script></html>
"""
